// columns() on AMX's tiles of 8-bit integers, for whatever executes the tile instructions: the
// processor, or the emulation that the tests bring. The rest is written with vector types, so that
// both run the same source.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#include "linear/kernels.h"

namespace emm::linear {

// What ldtilecfg reads. Tiles 0 to 3 hold sums of products, 4 and 5 activations, 6 and 7 weights.
struct TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64);

// Tiles: configure(), release(), zero<T>(), load<T>(), store<T>(), multiply<Sum, A, B>(). All that
// is here depends on it, because files with other -m options share no function.
template <class Tiles>
class AmxColumns {
 public:
  static constexpr int64_t kBlock = 32;  // outputs
  static constexpr int64_t kChunk = 8;   // order of the inputs with 4-bit weights

  static int64_t scratch(const Layer& layer) {
    return weight_room(layer) + layer.groups() * kBlock * 4;
  }

  static void run(const Layer& layer, const Activations& in, const float* sums, int64_t begin,
                  int64_t end, uint8_t* scratch, float* out) {
    auto* const scales = reinterpret_cast<float*>(scratch + weight_room(layer));
    expand(layer, begin, end, scratch);
    const bool has_groups = layer.format == Format::kInt4Groups;
    if (has_groups) expand_scales(layer, begin, end, kBlock, scales);
    // Inputs of a tile. Rows end in zeros up to a multiple of 128.
    const int64_t step = has_groups && layer.group % 64 != 0 ? 32 : 64;
    const Block block = {&layer, &in, sums, scratch, scales, step, begin, end - begin, out};
    const Session session;
    int64_t configured[2] = {-1, -1};
    for (int64_t i = 0; i < in.rows;) {
      const int64_t top = std::min<int64_t>(kRows, in.rows - i);
      const int64_t bottom = has_groups ? top : std::min<int64_t>(kRows, in.rows - i - top);
      if (configured[0] != top || configured[1] != bottom) configure(top, bottom, step);
      configured[0] = top;
      configured[1] = bottom;
      if (has_groups) {
        grouped_tile(block, i, top, 0);
        if (block.count > kLanes) grouped_tile(block, i, top, 1);
        i += top;
      } else {
        whole_tiles(block, i, top, bottom);
        i += top + bottom;
      }
    }
  }

 private:
  static constexpr int64_t kRows = 16;   // of a tile
  static constexpr int64_t kLanes = 16;  // outputs of a tile
  using Floats = float __attribute__((vector_size(64)));
  using Ints = int32_t __attribute__((vector_size(64)));
  using Bytes = int8_t __attribute__((vector_size(64)));
  using Ints4 = int32_t __attribute__((vector_size(16)));

  // Tile state costs every switch of threads: it goes when the call ends.
  struct Session {
    Session() = default;
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;
    ~Session() { Tiles::release(); }
  };

  struct Block {
    const Layer* layer;
    const Activations* in;
    const float* sums;
    const uint8_t* weights;
    const float* scales;
    int64_t step;
    int64_t begin;
    int64_t count;
    float* out;
  };

  static int64_t weight_room(const Layer& layer) { return padded(layer.inputs) * kBlock; }

  static void configure(int64_t top, int64_t bottom, int64_t step) {
    TileConfig config;
    const auto shape = [&](int tile, int64_t rows, int64_t bytes) {
      config.rows[tile] = static_cast<uint8_t>(rows);
      config.row_bytes[tile] = static_cast<uint16_t>(rows == 0 ? 0 : bytes);
    };
    for (const int tile : {0, 1}) shape(tile, top, 64);
    for (const int tile : {2, 3}) shape(tile, bottom, 64);
    shape(4, top, step);
    shape(5, bottom, step);
    for (const int tile : {6, 7}) shape(tile, step / 4, 64);
    Tiles::configure(config);
  }

  template <typename Vector>
  static Vector load(const void* from) {
    Vector vector;
    std::memcpy(&vector, from, sizeof vector);
    return vector;
  }
  // Of 16 numbers of 32 bits those that are there, zeros behind them.
  static Floats load_some(const void* from, int64_t count) {
    Floats vector = {};
    std::memcpy(&vector, from, static_cast<size_t>(std::min(count, kLanes)) * 4);
    return vector;
  }
  static Floats fused(Floats a, Floats b, Floats c) {
#if defined(__AVX512F__)
    return _mm512_fmadd_ps(a, b, c);
#else
    for (int64_t n = 0; n < kLanes; ++n) c[n] = std::fma(a[n], b[n], c[n]);
    return c;
#endif
  }
  static Floats floats(Ints integers) { return __builtin_convertvector(integers, Floats); }

  // The four bytes at `at`, at + 4, at + 8 and at + 12 of 16 rows; zeros behind the rows.
  static void load_square(const uint8_t* const* row, int64_t at, int64_t bytes, Ints (&word)[4]) {
    const auto there = static_cast<size_t>(std::min<int64_t>(bytes - at, 16));
    const auto part = [&](int r) {
      Ints4 four = {};
      if (there == 16) {
        std::memcpy(&four, row[r] + at, 16);
      } else {
        std::memcpy(&four, row[r] + at, there);
      }
      return four;
    };
    Ints quarter[4];
    for (int q = 0; q < 4; ++q) {
      const auto low = __builtin_shufflevector(part(q), part(q + 4), 0, 1, 2, 3, 4, 5, 6, 7);
      const auto high = __builtin_shufflevector(part(q + 8), part(q + 12), 0, 1, 2, 3, 4, 5, 6, 7);
      quarter[q] =
          __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    }
    const auto low_words = [](Ints a, Ints b) -> Ints {
      return __builtin_shufflevector(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13,
                                     29);
    };
    const auto high_words = [](Ints a, Ints b) -> Ints {
      return __builtin_shufflevector(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15,
                                     31);
    };
    const auto low_pairs = [](Ints a, Ints b) -> Ints {
      return __builtin_shufflevector(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28,
                                     29);
    };
    const auto high_pairs = [](Ints a, Ints b) -> Ints {
      return __builtin_shufflevector(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30,
                                     31);
    };
    const Ints ab_low = low_words(quarter[0], quarter[1]);
    const Ints ab_high = high_words(quarter[0], quarter[1]);
    const Ints cd_low = low_words(quarter[2], quarter[3]);
    const Ints cd_high = high_words(quarter[2], quarter[3]);
    word[0] = low_pairs(ab_low, cd_low);
    word[1] = high_pairs(ab_low, cd_low);
    word[2] = low_pairs(ab_high, cd_high);
    word[3] = high_pairs(ab_high, cd_high);
  }

  // Weights as [inputs / 4][32][4] signed bytes, up to a multiple of 64 inputs: 16 outputs of
  // `step` inputs are a tile.
  static void expand(const Layer& layer, int64_t begin, int64_t end, uint8_t* to) {
    const int64_t bytes = layer.row_bytes();
    const bool is_narrow = is_int4(layer.format);
    const int64_t room = padded(bytes * (is_narrow ? 2 : 1)) / (is_narrow ? 2 : 1);
    for (int64_t half = 0; half < 2; ++half) {
      const uint8_t* row[kLanes];
      for (int64_t r = 0; r < kLanes; ++r)
        row[r] = layer.row(std::min(begin + half * kLanes + r, end - 1));
      uint8_t* at = to + half * 64;
      const auto put = [&at](auto vector) {
        std::memcpy(at, &vector, 64);
        at += 128;
      };
      for (int64_t b = 0; b < room; b += 16) {
        Ints words[4] = {};
        if (b < bytes) load_square(row, b, bytes, words);
        for (const Ints word : words) {
          if (!is_narrow) {
            put(word);
            continue;
          }
          put(reinterpret_cast<Bytes>(word & 0x0F0F0F0F) - 8);
          put(reinterpret_cast<Bytes>((word >> 4) & 0x0F0F0F0F) - 8);
        }
      }
    }
  }

  static Floats left_of(const Block& block, const void* of_outputs, int64_t half) {
    if (of_outputs == nullptr) return Floats{};
    const int64_t first = half * kLanes;
    return load_some(static_cast<const uint8_t*>(of_outputs) + (block.begin + first) * 4,
                     block.count - first);
  }

  static void store(const Block& block, int64_t i, int64_t half, Floats y) {
    const Layer& layer = *block.layer;
    const int64_t first = half * kLanes;
    y = layer.low > y ? layer.low + Floats{} : y;  // NaN stays
    y = layer.high < y ? layer.high + Floats{} : y;
    float* const to = block.out + i * layer.outputs + block.begin + first;
    std::memcpy(to, &y, static_cast<size_t>(std::min(block.count - first, kLanes)) * 4);
  }

  // 16 outputs of up to 16 rows. Group by group as the other kernels add.
  static void grouped_tile(const Block& block, int64_t i, int64_t rows, int64_t half) {
    const Activations& in = *block.in;
    const Layer& layer = *block.layer;
    const Floats sums = left_of(block, block.sums, half);
    Floats total[kRows];
    // Rows behind the last are computed like it, and dropped.
#pragma GCC unroll 16
    for (int64_t m = 0; m < kRows; ++m)
      total[m] = -static_cast<float>(in.scales[i + std::min(m, rows - 1)].zero_point) * sums;
    alignas(64) int32_t products[2][kRows][kLanes] = {};
    const int8_t* x = in.values + i * in.stride;
    const uint8_t* weights = block.weights + half * 64;
    const float* scales = block.scales + half * kLanes;
    const auto multiply = [&](auto parity) __attribute__((always_inline)) {
      constexpr int kOdd = decltype(parity)::value;
      Tiles::template zero<kOdd * 2>();
      for (int64_t k = 0; k < layer.group; k += block.step) {
        Tiles::template load<4 + kOdd>(x, in.stride);
        Tiles::template load<6 + kOdd>(weights, kBlock * 4);
        Tiles::template multiply<kOdd * 2, 4 + kOdd, 6 + kOdd>();
        x += block.step;
        weights += block.step * kBlock;
      }
      Tiles::template store<kOdd * 2>(products[kOdd], 64);
    };
    const auto add = [&](const int32_t (&from)[kRows][kLanes]) __attribute__((always_inline)) {
      const auto scale = load<Floats>(scales);
      scales += kBlock;
#pragma GCC unroll 16
      for (int64_t m = 0; m < kRows; ++m)
        total[m] = fused(floats(load<Ints>(from[m])), scale, total[m]);
    };
    // The products of a group are added while the tiles compute the next one's.
    for (int64_t pairs = layer.groups() / 2; pairs > 0; --pairs) {
      multiply(std::integral_constant<int, 0>());
      multiply(std::integral_constant<int, 1>());
      add(products[0]);
      add(products[1]);
    }
    if (layer.groups() % 2 != 0) {
      multiply(std::integral_constant<int, 0>());
      add(products[0]);
    }
    Floats row[kRows];
#pragma GCC unroll 16
    for (int64_t m = 0; m < kRows; ++m) row[m] = total[m];
    const Floats bias = left_of(block, layer.bias, half);
#pragma GCC unroll 1
    for (int64_t m = 0; m < rows; ++m)
      store(block, i + m, half, row[m] * in.scales[i + m].scale + bias);
  }

  // One scale for each output: 32 outputs of up to 32 rows.
  static void whole_tiles(const Block& block, int64_t i, int64_t top, int64_t bottom) {
    const Activations& in = *block.in;
    const int8_t* x = in.values + i * in.stride;
    const uint8_t* weights = block.weights;
    Tiles::template zero<0>();
    Tiles::template zero<1>();
    if (bottom > 0) {
      Tiles::template zero<2>();
      Tiles::template zero<3>();
    }
    for (int64_t k = 0; k < in.inputs; k += 64, x += 64, weights += 64 * kBlock) {
      Tiles::template load<4>(x, in.stride);
      Tiles::template load<6>(weights, kBlock * 4);
      Tiles::template multiply<0, 4, 6>();
      Tiles::template load<7>(weights + 64, kBlock * 4);
      Tiles::template multiply<1, 4, 7>();
      if (bottom == 0) continue;
      Tiles::template load<5>(x + kRows * in.stride, in.stride);
      Tiles::template multiply<2, 5, 6>();
      Tiles::template multiply<3, 5, 7>();
    }
    alignas(64) int32_t products[4][kRows][kLanes];
    Tiles::template store<0>(products[0], 64);
    Tiles::template store<1>(products[1], 64);
    if (bottom > 0) {
      Tiles::template store<2>(products[2], 64);
      Tiles::template store<3>(products[3], 64);
    }
    for (int64_t half = 0; half * kLanes < block.count; ++half) {
      const Ints sums = __builtin_convertvector(left_of(block, block.sums, half), Ints);
      const Floats factor = left_of(block, block.layer->scales, half);
      const Floats bias = left_of(block, block.layer->bias, half);
      for (int64_t m = 0; m < top + bottom; ++m) {
        const RowScale& row = in.scales[i + m];
        const auto dot = load<Ints>(products[m / kRows * 2 + half][m % kRows]);
        const Floats y = floats(dot - row.zero_point * sums) * row.scale;
        store(block, i + m, half, fused(y, factor, bias));
      }
    }
  }
};

}  // namespace emm::linear
