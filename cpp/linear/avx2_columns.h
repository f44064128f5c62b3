// Many rows of activations on AVX2, tile by tile: the weights of 16 outputs, so that sums of
// products stay in the lane of their output: 4-bit ones as [inputs / 4][16][4] unsigned bytes,
// 8-bit ones as [inputs / 2][16][2] 16-bit integers, floats as [inputs][16]; then the scales of
// each group as [groups][16] floats, and rows of activations as 16-bit integers. Included once for
// AVX2 and once, for 4-bit groups alone, with AVX-VNNI beside it.
#pragma once

#include "linear/avx2.h"
#include "linear/tiles.h"

namespace emm::linear::avx2 {
namespace {

constexpr int kTileRows = 4;

// Sums of products of 4-bit weights, of two inputs in 16 bits or of four in 32 bits. They begin
// with what takes off the weights' offset: two sums of 16 bits, which end as one.
#if defined(__AVXVNNI__)
constexpr bool kHasVnni = true;
inline __m256i begin_sums(int32_t offsets) {
  return _mm256_madd_epi16(_mm256_set1_epi32(offsets), _mm256_set1_epi16(1));
}
inline __m256i add_products(__m256i sums, __m256i weights, __m256i activations) {
  return _mm256_dpbusd_avx_epi32(sums, weights, activations);
}
inline __m256i end_sums(__m256i sums) { return sums; }
#else
constexpr bool kHasVnni = false;
inline __m256i begin_sums(int32_t offsets) { return _mm256_set1_epi32(offsets); }
inline __m256i add_products(__m256i sums, __m256i weights, __m256i activations) {
  return _mm256_add_epi16(sums, _mm256_maddubs_epi16(weights, activations));
}
inline __m256i end_sums(__m256i sums) { return _mm256_madd_epi16(sums, _mm256_set1_epi16(1)); }
#endif

int64_t weight_room(const Layer& layer) {
  const int64_t bytes = is_int4(layer.format) ? 1 : layer.format == Format::kInt8 ? 2 : 4;
  return padded(layer.inputs) * kBlock * bytes;
}
int64_t scale_room(const Layer& layer) { return (layer.groups() * kBlock * 4 + 63) / 64 * 64; }

// 16 bytes of each of 8 rows, as the 4 bytes of each row in 4 vectors.
struct Square {
  __m256i word[4];
};
Square load_square(const uint8_t* const* row, int64_t at, int64_t bytes) {
  const auto load = [&](int r) {
    if (bytes - at >= 16) return _mm_loadu_si128(reinterpret_cast<const __m128i*>(row[r] + at));
    alignas(16) uint8_t copy[16] = {};
    std::memcpy(copy, row[r] + at, static_cast<size_t>(bytes - at));
    return _mm_load_si128(reinterpret_cast<const __m128i*>(copy));
  };
  __m256i quarter[4];
  for (int q = 0; q < 4; ++q) quarter[q] = _mm256_set_m128i(load(q + 4), load(q));
  const __m256i ab_low = _mm256_unpacklo_epi32(quarter[0], quarter[1]);
  const __m256i ab_high = _mm256_unpackhi_epi32(quarter[0], quarter[1]);
  const __m256i cd_low = _mm256_unpacklo_epi32(quarter[2], quarter[3]);
  const __m256i cd_high = _mm256_unpackhi_epi32(quarter[2], quarter[3]);
  return {{_mm256_unpacklo_epi64(ab_low, cd_low), _mm256_unpackhi_epi64(ab_low, cd_low),
           _mm256_unpacklo_epi64(ab_high, cd_high), _mm256_unpackhi_epi64(ab_high, cd_high)}};
}

void expand(const Layer& layer, int64_t begin, int64_t end, uint8_t* to) {
  const int64_t bytes = layer.row_bytes();
  const __m256i low_half = _mm256_set1_epi8(15);
  // To the high bytes of 16-bit integers.
  const __m256i first_two = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(-1, 0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13));
  const __m256i last_two = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(-1, 2, -1, 3, -1, 6, -1, 7, -1, 10, -1, 11, -1, 14, -1, 15));
  for (int64_t half = 0; half < 2; ++half) {
    const uint8_t* row[8];
    for (int64_t r = 0; r < 8; ++r) row[r] = layer.row(std::min(begin + half * 8 + r, end - 1));
    uint8_t* at = to + half * 32;
    for (int64_t b = 0; b < bytes; b += 16) {
      const Square square = load_square(row, b, bytes);
      for (const __m256i word : square.word) {
        switch (kHasVnni ? Format::kInt4 : layer.format) {
          case Format::kFloat32:
            store_whole(at, word);
            at += 64;
            break;
          case Format::kInt8:  // bytes 0 and 1 of each output, then 2 and 3
            store_whole(at, _mm256_srai_epi16(_mm256_shuffle_epi8(word, first_two), 8));
            store_whole(at + 64, _mm256_srai_epi16(_mm256_shuffle_epi8(word, last_two), 8));
            at += 128;
            break;
          default:
            store_whole(at, _mm256_and_si256(word, low_half));
            store_whole(at + 64, _mm256_and_si256(_mm256_srli_epi16(word, 4), low_half));
            at += 128;
        }
      }
    }
  }
}

struct Tile {
  const Layer* layer;
  const Activations* in;
  const uint8_t* weights;
  const float* scales;
  int16_t* wide;
  int64_t begin;
  int64_t count;
  float* out;
  // Of these outputs, zeros behind them.
  alignas(32) float sums[kBlock];
  alignas(32) float bias[kBlock];
};

__m256 sums_of(const Tile& tile, int64_t half) { return _mm256_load_ps(tile.sums + half * 8); }

void store_half(const Tile& tile, int64_t i, int64_t half, __m256 value, __m256 factor) {
  const Layer& layer = *tile.layer;
  const __m256 bias = _mm256_load_ps(tile.bias + half * 8);
  // As XNNPACK rounds: see reference.cpp.
  __m256 y = layer.format == Format::kInt4Groups ? _mm256_add_ps(_mm256_mul_ps(value, factor), bias)
                                                 : _mm256_fmadd_ps(value, factor, bias);
  y = _mm256_max_ps(_mm256_set1_ps(layer.low), y);  // NaN stays
  y = _mm256_min_ps(_mm256_set1_ps(layer.high), y);
  float* const to = tile.out + i * layer.outputs + tile.begin + half * 8;
  const int64_t count = tile.count - half * 8;
  if (count >= 8) {
    _mm256_storeu_ps(to, y);
  } else if (count > 0) {
    _mm256_maskstore_ps(to, lanes(count), y);
  }
}

// One scale for each output.
void store_integers(const Tile& tile, int64_t i, int64_t half, __m256i sum) {
  const int64_t count = tile.count - half * 8;
  if (count <= 0) return;
  const RowScale& row = tile.in->scales[i];
  const __m256i weights = _mm256_cvtps_epi32(sums_of(tile, half));
  sum = _mm256_sub_epi32(sum, _mm256_mullo_epi32(_mm256_set1_epi32(row.zero_point), weights));
  store_half(tile, i, half, _mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_set1_ps(row.scale)),
             load_some(tile.layer->scales + (tile.begin + half * 8) * 4, count));
}

// Groups: none, one of each unit of 32 inputs, or of several units.
enum class Groups : uint8_t { kNone, kOfOneUnit, kOfUnits };

template <int kM, Groups kGroups>
void tile_int4(const Tile& tile, int64_t i) {
  const Activations& in = *tile.in;
  const Layer& layer = *tile.layer;
  const int8_t* x[kM];
  const int32_t* offsets[kM];
  __m256 total[kM][2];
  __m256i integer[kM][2];
#pragma GCC unroll 8
  for (int m = 0; m < kM; ++m) {
    x[m] = in.values + (i + m) * in.stride;
    offsets[m] = in.offsets32 + (i + m) * (in.stride / 32);
    const __m256 zero = _mm256_set1_ps(-static_cast<float>(in.scales[i + m].zero_point));
#pragma GCC unroll 2
    for (int64_t half = 0; half < 2; ++half) {
      total[m][half] = _mm256_mul_ps(zero, sums_of(tile, half));
      integer[m][half] = _mm256_setzero_si256();
    }
  }
  const int64_t units = (layer.inputs + kGroupUnit - 1) / kGroupUnit;
  const int64_t group_units = kGroups == Groups::kNone ? units : layer.group / kGroupUnit;
  const uint8_t* weights = tile.weights;
  const float* scales = tile.scales;
  int64_t left_in_group = group_units;
  for (int64_t unit = 0; unit < units; ++unit) {
    __m256i partial[kM][2];
#pragma GCC unroll 8
    for (int m = 0; m < kM; ++m) {
      partial[m][0] = partial[m][1] = begin_sums(offsets[m][unit]);
      keep_order(partial[m][0]);
      keep_order(partial[m][1]);
    }
#pragma GCC unroll 8
    for (int64_t quad = 0; quad < 8; ++quad) {
      const __m256i w0 = load_whole(weights + quad * 64);
      const __m256i w1 = load_whole(weights + quad * 64 + 32);
#pragma GCC unroll 8
      for (int m = 0; m < kM; ++m) {
        int32_t four;
        std::memcpy(&four, x[m] + unit * kGroupUnit + quad * 4, 4);
        const __m256i activations = _mm256_set1_epi32(four);
        partial[m][0] = add_products(partial[m][0], w0, activations);
        partial[m][1] = add_products(partial[m][1], w1, activations);
        keep_order(partial[m][0]);
        keep_order(partial[m][1]);
      }
    }
    weights += 8 * 64;
    const bool ends = kGroups == Groups::kOfOneUnit || --left_in_group == 0;
#pragma GCC unroll 8
    for (int m = 0; m < kM; ++m) {
#pragma GCC unroll 2
      for (int64_t half = 0; half < 2; ++half) {
        __m256i sum = end_sums(partial[m][half]);
        if constexpr (kGroups != Groups::kOfOneUnit) {
          sum = _mm256_add_epi32(integer[m][half], sum);
          integer[m][half] = sum;
        }
        if (kGroups != Groups::kNone && ends) {
          total[m][half] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum),
                                           _mm256_load_ps(scales + half * 8), total[m][half]);
          integer[m][half] = _mm256_setzero_si256();
        }
      }
    }
    if (ends) {
      scales += kBlock;
      left_in_group = group_units;
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < kM; ++m) {
#pragma GCC unroll 2
    for (int64_t half = 0; half < 2; ++half) {
      if (kGroups != Groups::kNone) {
        store_half(tile, i + m, half, total[m][half], _mm256_set1_ps(in.scales[i + m].scale));
      } else {
        store_integers(tile, i + m, half, integer[m][half]);
      }
    }
  }
}

template <int kM>
void tile_int8(const Tile& tile, int64_t i) {
  const Activations& in = *tile.in;
#pragma GCC unroll 8
  for (int m = 0; m < kM; ++m) {
    const int8_t* const x = in.values + (i + m) * in.stride;
    for (int64_t k = 0; k < in.stride; k += 16) {
      store_whole(tile.wide + m * in.stride + k,
                  _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x + k))));
    }
  }
  __m256i sum[kM][2];
#pragma GCC unroll 8
  for (int m = 0; m < kM; ++m) sum[m][0] = sum[m][1] = _mm256_setzero_si256();
  const int64_t pairs = (tile.layer->inputs + 1) / 2;
  for (int64_t pair = 0; pair < pairs; ++pair) {
    const __m256i w0 = load_whole(tile.weights + pair * 64);
    const __m256i w1 = load_whole(tile.weights + pair * 64 + 32);
#pragma GCC unroll 8
    for (int m = 0; m < kM; ++m) {
      int32_t two;
      std::memcpy(&two, tile.wide + m * in.stride + pair * 2, 4);
      const __m256i x = _mm256_set1_epi32(two);
      sum[m][0] = _mm256_add_epi32(sum[m][0], _mm256_madd_epi16(w0, x));
      sum[m][1] = _mm256_add_epi32(sum[m][1], _mm256_madd_epi16(w1, x));
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < kM; ++m) {
    store_integers(tile, i + m, 0, sum[m][0]);
    store_integers(tile, i + m, 1, sum[m][1]);
  }
}

template <int kM>
void tile_floats(const Tile& tile, int64_t i) {
  const Activations& in = *tile.in;
  __m256 sum[kM][2];
#pragma GCC unroll 8
  for (int m = 0; m < kM; ++m) sum[m][0] = sum[m][1] = _mm256_setzero_ps();
  for (int64_t k = 0; k < tile.layer->inputs; ++k) {
    const float* const w = reinterpret_cast<const float*>(tile.weights + k * 64);
    const __m256 w0 = _mm256_load_ps(w);
    const __m256 w1 = _mm256_load_ps(w + 8);
#pragma GCC unroll 8
    for (int m = 0; m < kM; ++m) {
      const __m256 x = _mm256_broadcast_ss(in.floats + (i + m) * in.inputs + k);
      sum[m][0] = _mm256_fmadd_ps(w0, x, sum[m][0]);
      sum[m][1] = _mm256_fmadd_ps(w1, x, sum[m][1]);
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < kM; ++m) {
    store_half(tile, i + m, 0, sum[m][0], _mm256_set1_ps(1));
    store_half(tile, i + m, 1, sum[m][1], _mm256_set1_ps(1));
  }
}

template <int kM>
void some_tile(const Tile& tile, int64_t i) {
  const Layer& layer = *tile.layer;
  if (layer.format == Format::kInt4Groups) {
    if (layer.group == kGroupUnit) return tile_int4<kM, Groups::kOfOneUnit>(tile, i);
    return tile_int4<kM, Groups::kOfUnits>(tile, i);
  }
  if constexpr (!kHasVnni) {
    // Only for the format that is used by default there is code for each number of rows.
    if constexpr (kM > 1 && kM < kTileRows) {
      some_tile<1>(tile, i);
      some_tile<kM - 1>(tile, i + 1);
    } else if (layer.format == Format::kFloat32) {
      tile_floats<kM>(tile, i);
    } else if (layer.format == Format::kInt8) {
      tile_int8<kM>(tile, i);
    } else {
      tile_int4<kM, Groups::kNone>(tile, i);
    }
  }
}

// See Kernels::columns.
inline void columns_of(const Layer& layer, const Activations& in, const float* sums, int64_t begin,
                       int64_t end, uint8_t* scratch, float* out) {
  float* const scales = reinterpret_cast<float*>(scratch + weight_room(layer));
  expand(layer, begin, end, scratch);
  if (layer.format == Format::kInt4Groups) expand_scales(layer, begin, end, kBlock, scales);
  int16_t* const wide =
      reinterpret_cast<int16_t*>(scratch + weight_room(layer) + scale_room(layer));
  Tile tile = {&layer, &in, scratch, scales, wide, begin, end - begin, out, {}, {}};
  if (sums) std::copy(sums + begin, sums + end, tile.sums);
  for (int64_t n = begin; layer.bias && n < end; ++n)
    tile.bias[n - begin] = load_float(layer.bias, n);
  for_tiles<kTileRows>(in.rows, [&](auto height, int64_t i) { some_tile<height.value>(tile, i); });
}

}  // namespace
}  // namespace emm::linear::avx2
