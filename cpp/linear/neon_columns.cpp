// Many rows of activations with sdot, tile by tile: the weights of 16 outputs as [inputs /
// 4][16][4] signed bytes (or [inputs][16] floats), so that sums of products stay in the lane of
// their output.
#include <type_traits>

#include "linear/neon.h"

namespace emm::linear::neon {
namespace {

constexpr int kTileRows = 4;
constexpr int kVectors = 2;  // of four outputs that a tile has at a time

// Word j of four rows' 16 bytes, the words of the four rows side by side.
void transpose(const uint8x16_t (&row)[4], uint32x4_t (&word)[4]) {
  const uint32x4_t a = vreinterpretq_u32_u8(row[0]);
  const uint32x4_t b = vreinterpretq_u32_u8(row[1]);
  const uint32x4_t c = vreinterpretq_u32_u8(row[2]);
  const uint32x4_t d = vreinterpretq_u32_u8(row[3]);
  const auto join = [](uint32x4_t low, uint32x4_t high, bool upper) {
    const uint64x2_t x = vreinterpretq_u64_u32(low);
    const uint64x2_t y = vreinterpretq_u64_u32(high);
    return vreinterpretq_u32_u64(upper ? vzip2q_u64(x, y) : vzip1q_u64(x, y));
  };
  word[0] = join(vzip1q_u32(a, b), vzip1q_u32(c, d), false);
  word[1] = join(vzip1q_u32(a, b), vzip1q_u32(c, d), true);
  word[2] = join(vzip2q_u32(a, b), vzip2q_u32(c, d), false);
  word[3] = join(vzip2q_u32(a, b), vzip2q_u32(c, d), true);
}

void expand(const Layer& layer, int64_t begin, int64_t end, uint8_t* to) {
  const int64_t bytes = layer.row_bytes();
  const int8x16_t offset = vdupq_n_s8(8);
  for (int64_t first = 0; first < kBlock; first += 4) {
    uint8_t* at = to + first * 4;
    for (int64_t b = 0; b < bytes; b += 16) {
      uint8x16_t row[4];
      for (int64_t r = 0; r < 4; ++r)
        row[r] = load_bytes(layer.row(std::min(begin + first + r, end - 1)) + b, bytes - b);
      uint32x4_t word[4];
      transpose(row, word);
      for (const uint32x4_t four : word) {
        const uint8x16_t values = vreinterpretq_u8_u32(four);
        if (is_int4(layer.format)) {
          vst1q_s8(reinterpret_cast<int8_t*>(at), vsubq_s8(low_half(values), offset));
          vst1q_s8(reinterpret_cast<int8_t*>(at) + 64, vsubq_s8(high_half(values), offset));
          at += 128;
        } else {
          vst1q_u8(at, values);
          at += 64;
        }
      }
    }
  }
}

struct Tile {
  const Layer& layer;
  const Activations& in;
  const int8_t* weights;
  const float* scales;
  const Finish* finish;  // of its eight outputs
  int64_t vectors;       // of them that are wanted
  float* out;
};

template <int kM>
inline __attribute__((always_inline)) void add_sixteen(const int8_t* weights,
                                                       const int8_t* const (&x)[kM], int64_t k,
                                                       int32x4_t (&sum)[kM][kVectors]) {
  int8x16_t values[kM];
  for (int m = 0; m < kM; ++m) values[m] = vld1q_s8(x[m] + k);
  const auto quad = [&](auto lane) __attribute__((always_inline)) {
    constexpr int kLane = decltype(lane)::value;
    for (int v = 0; v < kVectors; ++v) {
      const int8x16_t w = vld1q_s8(weights + k * kBlock + kLane * 64 + v * 16);
      for (int m = 0; m < kM; ++m) sum[m][v] = vdotq_laneq_s32(sum[m][v], w, values[m], kLane);
    }
  };
  quad(std::integral_constant<int, 0>());
  quad(std::integral_constant<int, 1>());
  quad(std::integral_constant<int, 2>());
  quad(std::integral_constant<int, 3>());
}

template <int kM>
void quantised_tile(const Tile& tile, int64_t i) {
  const Layer& layer = tile.layer;
  const bool has_groups = layer.format == Format::kInt4Groups;
  const int64_t group = has_groups ? layer.group : layer.inputs;
  const int8_t* x[kM];
  float32x4_t total[kM][kVectors];
  int32x4_t sum[kM][kVectors] = {};
  for (int m = 0; m < kM; ++m) {
    x[m] = tile.in.values + (i + m) * tile.in.stride;
    for (int v = 0; v < kVectors; ++v)
      total[m][v] = tile.finish[v].first_total(tile.in.scales[i + m]);
  }
  const float* scales = tile.scales;
  for (int64_t begin = 0; begin < layer.inputs; begin += group) {
    for (int64_t k = begin; k < begin + group; k += 16) add_sixteen<kM>(tile.weights, x, k, sum);
    if (!has_groups) break;
    for (int v = 0; v < kVectors; ++v) {
      const float32x4_t scale = vld1q_f32(scales + v * 4);
      for (int m = 0; m < kM; ++m) {
        total[m][v] = vfmaq_f32(total[m][v], vcvtq_f32_s32(sum[m][v]), scale);
        sum[m][v] = vdupq_n_s32(0);
      }
    }
    scales += kBlock;
  }
  for (int m = 0; m < kM; ++m) {
    const RowScale& row = tile.in.scales[i + m];
    float* const to = tile.out + (i + m) * layer.outputs;
    for (int v = 0; v < tile.vectors; ++v) {
      if (has_groups) {
        tile.finish[v].store_groups(row, total[m][v], to);
      } else {
        tile.finish[v].store_whole(row, sum[m][v], to);
      }
    }
  }
}

template <int kM>
void float_tile(const Tile& tile, int64_t i) {
  float32x4_t sum[kM][kVectors] = {};
  const float* const weights = reinterpret_cast<const float*>(tile.weights);
  for (int64_t k = 0; k < tile.layer.inputs; ++k) {
    for (int v = 0; v < kVectors; ++v) {
      const float32x4_t w = vld1q_f32(weights + k * kBlock + v * 4);
      for (int m = 0; m < kM; ++m)
        sum[m][v] = vfmaq_n_f32(sum[m][v], w, tile.in.floats[(i + m) * tile.in.inputs + k]);
    }
  }
  for (int m = 0; m < kM; ++m)
    for (int v = 0; v < tile.vectors; ++v)
      tile.finish[v].store_floats(sum[m][v], tile.out + (i + m) * tile.layer.outputs);
}

template <int kM>
void some_tile(const Tile& tile, int64_t i) {
  if (tile.layer.format == Format::kFloat32) return float_tile<kM>(tile, i);
  quantised_tile<kM>(tile, i);
}

}  // namespace

int64_t column_scratch(const Layer& layer) {
  return weight_room(layer) + layer.groups() * kBlock * 4;
}

void columns(const Layer& layer, const Activations& in, const float* sums, int64_t begin,
             int64_t end, uint8_t* scratch, float* out) {
  expand(layer, begin, end, scratch);
  const float* const scales = scales_in(scratch, layer, begin, end);
  constexpr int64_t kWidth = kVectors * 4;
  for (int64_t n = begin; n < end; n += kWidth) {
    const int64_t count = std::min(kWidth, end - n);
    const Finishes finish = finish_eight(layer, sums, n, count);
    const Tile tile = {layer,
                       in,
                       reinterpret_cast<const int8_t*>(scratch) + (n - begin) * 4,
                       scales + (n - begin),
                       finish.data(),
                       (count + 3) / 4,
                       out};
    int64_t i = 0;
    for (; i + kTileRows <= in.rows; i += kTileRows) some_tile<kTileRows>(tile, i);
    if (i + 2 <= in.rows) {
      some_tile<2>(tile, i);
      i += 2;
    }
    if (i < in.rows) some_tile<1>(tile, i);
  }
}

}  // namespace emm::linear::neon
