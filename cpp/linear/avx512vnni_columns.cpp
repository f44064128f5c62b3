#include <algorithm>

#include "linear/avx512vnni.h"
#include "linear/tiles.h"

namespace emm::linear::avx512vnni {
namespace {

constexpr int kTileRows = 6;
constexpr int kWholeRows = 12;  // with one scale for each output

// columns(): the weights of 32 outputs as [inputs / 4][32][4] unsigned bytes (or [inputs][32]
// floats), so that sums of products stay in the lane of their output; then the scales of each group
// as [groups][32] floats.
int64_t weight_room(const Layer& layer) {
  const int64_t bytes = layer.format == Format::kFloat32 ? 4 : 1;
  return padded(layer.inputs) * kBlock * bytes;
}

// 16 bytes of each of 16 rows; zeros behind the row.
struct Square {
  __m512i word[4];  // the 4 bytes of each row
};
Square load_square(const uint8_t* const* row, int64_t at, int64_t bytes) {
  __m512i quarter[4];
  const auto load = [&](int r) {
    if (bytes - at >= 16) return _mm_loadu_si128(reinterpret_cast<const __m128i*>(row[r] + at));
    return _mm_maskz_loadu_epi8(static_cast<__mmask16>((1u << (bytes - at)) - 1), row[r] + at);
  };
  for (int q = 0; q < 4; ++q) {
    __m512i v = _mm512_castsi128_si512(load(q));
    v = _mm512_inserti32x4(v, load(q + 4), 1);
    v = _mm512_inserti32x4(v, load(q + 8), 2);
    quarter[q] = _mm512_inserti32x4(v, load(q + 12), 3);
  }
  const __m512i ab_low = _mm512_unpacklo_epi32(quarter[0], quarter[1]);
  const __m512i ab_high = _mm512_unpackhi_epi32(quarter[0], quarter[1]);
  const __m512i cd_low = _mm512_unpacklo_epi32(quarter[2], quarter[3]);
  const __m512i cd_high = _mm512_unpackhi_epi32(quarter[2], quarter[3]);
  return {{_mm512_unpacklo_epi64(ab_low, cd_low), _mm512_unpackhi_epi64(ab_low, cd_low),
           _mm512_unpacklo_epi64(ab_high, cd_high), _mm512_unpackhi_epi64(ab_high, cd_high)}};
}

// Returns how many times four inputs there are, zeros behind them included: an even number.
int64_t expand(const Layer& layer, int64_t begin, int64_t end, uint8_t* to) {
  const int64_t bytes = layer.row_bytes();
  const __m512i low_half = _mm512_set1_epi8(15);
  const __m512i flip = _mm512_set1_epi8(-128);
  for (int64_t half = 0; half < 2; ++half) {
    const uint8_t* row[16];
    for (int64_t r = 0; r < 16; ++r) row[r] = layer.row(std::min(begin + half * 16 + r, end - 1));
    uint8_t* at = to + half * 64;
    for (int64_t b = 0; b < bytes; b += 16) {
      const Square square = load_square(row, b, bytes);
      for (const __m512i word : square.word) {
        switch (layer.format) {
          case Format::kFloat32:
            _mm512_storeu_si512(at, word);
            at += 128;
            break;
          case Format::kInt8:
            _mm512_storeu_si512(at, _mm512_xor_si512(word, flip));
            at += 128;
            break;
          default:
            _mm512_storeu_si512(at, _mm512_and_si512(word, low_half));
            _mm512_storeu_si512(at + 128, _mm512_and_si512(_mm512_srli_epi16(word, 4), low_half));
            at += 256;
        }
      }
    }
  }
  return (layer.inputs + 7) / 8 * 2;
}

// As linear::expand_scales(): two groups lie in each word of a row.
void expand_scales(const Layer& layer, int64_t begin, int64_t end, float* to) {
  const int64_t groups = layer.groups();
  const int64_t bytes = groups * 2;
  const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xFFFF0000));
  for (int64_t half = 0; half < 2; ++half) {
    const uint8_t* row[16];
    for (int64_t r = 0; r < 16; ++r)
      row[r] = layer.scales + std::min(begin + half * 16 + r, end - 1) * bytes;
    float* at = to + half * 16;
    for (int64_t b = 0; b < bytes; b += 16) {
      const Square square = load_square(row, b, bytes);
      for (int64_t word = 0; word < std::min<int64_t>(4, (bytes - b + 3) / 4); ++word) {
        _mm512_store_si512(at, _mm512_slli_epi32(square.word[word], 16));
        at += kBlock;
        if (b + word * 4 + 4 > bytes) break;  // an odd number of groups
        _mm512_store_si512(at, _mm512_and_si512(square.word[word], upper));
        at += kBlock;
      }
    }
  }
}

struct Tile {
  const Layer* layer;
  const Activations* in;
  const float* sums;
  const uint8_t* weights;
  const float* scales;
  int64_t quads;  // times four inputs
  int64_t begin;
  int64_t count;
  float* out;
  mutable int64_t ahead = 0;  // what has been prefetched

  // The share of the next block for rows up to `end` of `rows`.
  void prefetch(int64_t end, int64_t rows) const {
    const int64_t bytes = std::min(kBlock, layer->outputs - begin - count) * layer->row_bytes();
    const uint8_t* const next = layer->row(begin + count);
    for (; ahead < bytes * end / rows; ahead += 64)
      _mm_prefetch(reinterpret_cast<const char*>(next + ahead), _MM_HINT_T1);
  }
  __m512 left_sums() const { return _mm512_maskz_loadu_ps(lanes(count), sums + begin); }
  __m512 right_sums() const {
    return _mm512_maskz_loadu_ps(lanes(count - 16), sums + begin + std::min<int64_t>(16, count));
  }
};

// Per output: bias, clamp, store.
void store_half(const Tile& tile, int64_t i, int64_t half, __m512 value, __m512 factor) {
  const Layer& layer = *tile.layer;
  const int64_t first = tile.begin + half * 16;
  const __mmask16 mask = lanes(tile.count - half * 16);
  const __m512 bias =
      layer.bias ? _mm512_maskz_loadu_ps(mask, layer.bias + first * 4) : _mm512_setzero_ps();
  // As XNNPACK rounds: see reference.cpp.
  __m512 y = layer.format == Format::kInt4Groups ? _mm512_add_ps(_mm512_mul_ps(value, factor), bias)
                                                 : _mm512_fmadd_ps(value, factor, bias);
  y = _mm512_max_ps(_mm512_set1_ps(layer.low), y);  // NaN stays
  y = _mm512_min_ps(_mm512_set1_ps(layer.high), y);
  _mm512_mask_storeu_ps(tile.out + i * layer.outputs + first, mask, y);
}

__m512i four_inputs(const int8_t* from) {
  int32_t four;
  std::memcpy(&four, from, 4);
  return _mm512_set1_epi32(four);
}

// gcc copies sums from register to register around its intrinsic.
inline __attribute__((always_inline)) void add_product(__m512i& sum, __m512i weights,
                                                       __m512i value) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(weights), "v"(value));
}

// Sums of products over `quads` times four inputs, a multiple of kStep.
template <int kM, int kStep>
inline __attribute__((always_inline)) void add_products(const uint8_t* weights, const int8_t* x,
                                                        int64_t stride, int64_t quads,
                                                        __m512i (&left)[kM], __m512i (&right)[kM]) {
  const uint8_t* const end = weights + quads * 128;
  for (; weights != end; weights += kStep * 128, x += kStep * 4) {
#pragma GCC unroll 8
    for (int j = 0; j < kStep; ++j) {
      const __m512i w0 = _mm512_load_si512(weights + j * 128);
      const __m512i w1 = _mm512_load_si512(weights + j * 128 + 64);
#pragma GCC unroll 12
      for (int m = 0; m < kM; ++m) {
        const __m512i value = four_inputs(x + m * stride + j * 4);
        add_product(left[m], w0, value);
        add_product(right[m], w1, value);
      }
    }
  }
}

template <int kM>
void tile_groups(const Tile& tile, int64_t i) {
  const Activations& in = *tile.in;
  const Layer& layer = *tile.layer;
  __m512 left_total[kM];
  __m512 right_total[kM];
#pragma GCC unroll 8
  for (int m = 0; m < kM; ++m) {
    const __m512 zero = _mm512_set1_ps(-static_cast<float>(in.scales[i + m].zero_point));
    left_total[m] = _mm512_mul_ps(zero, tile.left_sums());
    right_total[m] = _mm512_mul_ps(zero, tile.right_sums());
  }
  const int64_t units = layer.group / kGroupUnit;
  const int64_t stride = in.stride;
  const int8_t* x = in.values + i * stride;
  const int32_t* offsets = in.offsets32 + i * (stride / 32);
  const uint8_t* weights = tile.weights;
  const float* scales = tile.scales;
  const float* const end = scales + layer.groups() * kBlock;
  for (; scales != end; scales += kBlock) {
    __m512i left[kM];
    __m512i right[kM];
#pragma GCC unroll 8
    for (int m = 0; m < kM; ++m) {
      left[m] = _mm512_set1_epi32(offsets[m * (stride / 32)]);
      right[m] = left[m];
    }
    for (int64_t unit = 1; unit < units; ++unit) {
      ++offsets;
#pragma GCC unroll 8
      for (int m = 0; m < kM; ++m) {
        const __m512i offset = _mm512_set1_epi32(offsets[m * (stride / 32)]);
        left[m] = _mm512_add_epi32(left[m], offset);
        right[m] = _mm512_add_epi32(right[m], offset);
      }
    }
    ++offsets;
    add_products<kM, 8>(weights, x, stride, units * 8, left, right);
    weights += units * 8 * 128;
    x += units * 32;
    const __m512 s0 = _mm512_load_ps(scales);
    const __m512 s1 = _mm512_load_ps(scales + 16);
#pragma GCC unroll 8
    for (int m = 0; m < kM; ++m) {
      left_total[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(left[m]), s0, left_total[m]);
      right_total[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(right[m]), s1, right_total[m]);
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < kM; ++m) {
    const __m512 factor = _mm512_set1_ps(in.scales[i + m].scale);
    store_half(tile, i + m, 0, left_total[m], factor);
    store_half(tile, i + m, 1, right_total[m], factor);
  }
}

// One scale for each output. The sums begin with what the offset and the zero point take off: a
// product of 32 bits would take two instructions, so the sum of the weights is in two halves, whose
// products with the zero point are exact.
template <int kM>
void tile_whole(const Tile& tile, int64_t i) {
  const Activations& in = *tile.in;
  const Layer& layer = *tile.layer;
  const int32_t offset = layer.format == Format::kInt8 ? 128 : 8;
  const auto halves = [](__m512 sums) {
    const __m512i less = _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_cvtps_epi32(sums));
    return _mm512_or_si512(_mm512_slli_epi32(_mm512_srai_epi32(less, 8), 16),
                           _mm512_and_si512(less, _mm512_set1_epi32(255)));
  };
  const __m512i left_halves = halves(tile.left_sums());
  const __m512i right_halves = halves(tile.right_sums());
  __m512i left[kM];
  __m512i right[kM];
#pragma GCC unroll 12
  for (int m = 0; m < kM; ++m) {
    const RowScale& row = in.scales[i + m];
    const auto zero = static_cast<uint32_t>(row.zero_point);
    const __m512i zeros = _mm512_set1_epi32(static_cast<int32_t>(zero << 24 | (zero & 0xFFFF)));
    const __m512i start = _mm512_set1_epi32(-offset * row.sum);
    left[m] = _mm512_dpwssd_epi32(start, left_halves, zeros);
    right[m] = _mm512_dpwssd_epi32(start, right_halves, zeros);
  }
  add_products<kM, 2>(tile.weights, in.values + i * in.stride, in.stride, tile.quads, left, right);
  const uint8_t* const scales = layer.scales + tile.begin * 4;
  const __m512 s0 = _mm512_maskz_loadu_ps(lanes(tile.count), scales);
  const __m512 s1 =
      _mm512_maskz_loadu_ps(lanes(tile.count - 16), scales + std::min<int64_t>(16, tile.count) * 4);
#pragma GCC unroll 12
  for (int m = 0; m < kM; ++m) {
    const __m512 factor = _mm512_set1_ps(in.scales[i + m].scale);
    store_half(tile, i + m, 0, _mm512_mul_ps(_mm512_cvtepi32_ps(left[m]), factor), s0);
    store_half(tile, i + m, 1, _mm512_mul_ps(_mm512_cvtepi32_ps(right[m]), factor), s1);
  }
}

// The last tile goes back over rows of the one before it: it computes the same.
template <int kM>
bool whole_tiles(const Tile& tile, int64_t rows) {
  if (rows < kM) return false;
  for (int64_t i = 0; i < rows; i += kM) {
    tile.prefetch(i + kM, rows);
    tile_whole<kM>(tile, std::min(i, rows - kM));
  }
  return true;
}

template <int kM>
void tile_floats(const Tile& tile, int64_t i) {
  const Activations& in = *tile.in;
  __m512 left[kM];
  __m512 right[kM];
#pragma GCC unroll 8
  for (int m = 0; m < kM; ++m) left[m] = right[m] = _mm512_setzero_ps();
  for (int64_t k = 0; k < tile.layer->inputs; ++k) {
    const __m512 w0 = _mm512_load_ps(tile.weights + k * 128);
    const __m512 w1 = _mm512_load_ps(tile.weights + k * 128 + 64);
#pragma GCC unroll 8
    for (int m = 0; m < kM; ++m) {
      const __m512 value = _mm512_set1_ps(in.floats[(i + m) * in.inputs + k]);
      left[m] = _mm512_fmadd_ps(w0, value, left[m]);
      right[m] = _mm512_fmadd_ps(w1, value, right[m]);
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < kM; ++m) {
    store_half(tile, i + m, 0, left[m], _mm512_set1_ps(1));
    store_half(tile, i + m, 1, right[m], _mm512_set1_ps(1));
  }
}

template <int kM>
void some_tile(const Tile& tile, int64_t i) {
  if (tile.layer->format == Format::kInt4Groups) return tile_groups<kM>(tile, i);
  if constexpr (kM > 2 && kM < kTileRows) {  // as in some_rows()
    some_tile<2>(tile, i);
    some_tile<kM - 2>(tile, i + 2);
  } else {
    tile_floats<kM>(tile, i);
  }
}
}  // namespace

int64_t column_scratch(const Layer& layer) {
  return weight_room(layer) + layer.groups() * kBlock * 4;
}

void columns(const Layer& layer, const Activations& in, const float* sums, int64_t begin,
             int64_t end, uint8_t* scratch, float* out) {
  float* const scales = reinterpret_cast<float*>(scratch + weight_room(layer));
  const int64_t quads = expand(layer, begin, end, scratch);
  if (layer.format == Format::kInt4Groups) expand_scales(layer, begin, end, scales);
  const Tile tile = {&layer, &in, sums, scratch, scales, quads, begin, end - begin, out};
  if (layer.format == Format::kInt8 || layer.format == Format::kInt4) {
    const bool has_many = in.rows >= 2 * kWholeRows && whole_tiles<kWholeRows>(tile, in.rows);
    if (!has_many && !whole_tiles<kTileRows>(tile, in.rows)) whole_tiles<1>(tile, in.rows);
    return;
  }
  for_tiles<kTileRows>(in.rows, [&](auto height, int64_t i) {
    tile.prefetch(i + height.value, in.rows);
    some_tile<height.value>(tile, i);
  });
}

}  // namespace emm::linear::avx512vnni
