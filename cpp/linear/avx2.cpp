// Kernels for AVX2 and FMA. 4-bit weights are the unsigned operand of vpmaddubsw, with an offset of
// 8 that the rows' sums take off again: no sum of 32 products leaves 16 bits. 8-bit weights would,
// so they are multiplied as 16-bit integers.
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "linear/kernels.h"

namespace emm::linear {
namespace {

constexpr int64_t kBlock = 16;  // outputs of columns()
constexpr int kTileRows = 4;
constexpr int64_t kChunk = 64;
constexpr int64_t kRowsAtOnce = 2;  // outputs of rows() that are computed together

__m256i lanes(int64_t count) {
  const __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(std::clamp<int64_t>(count, 0, 8))),
                            index);
}
__m256 load_some(const void* floats, int64_t count) {
  return _mm256_maskload_ps(static_cast<const float*>(floats), lanes(count));
}
// Up to 32 bytes, zeros behind them.
__m256i load_bytes(const uint8_t* from, int64_t count) {
  if (count >= 32) return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  alignas(32) uint8_t copy[32] = {};
  if (count > 0) std::memcpy(copy, from, static_cast<size_t>(count));
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(copy));
}
__m256i load_whole(const void* from) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}
void store_whole(void* to, __m256i value) { _mm256_storeu_si256(static_cast<__m256i*>(to), value); }
// Gcc makes all products of an unrolled loop first, and has no registers for them.
void keep_order(__m256i& sum) { asm("" : "+x"(sum)); }
float sum_of(__m256 v) {
  __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  half = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}
int32_t sum_of(__m256i v) {
  __m128i half = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4E));
  return _mm_cvtsi128_si32(_mm_add_epi32(half, _mm_shuffle_epi32(half, 0xB1)));
}

// -8 times the sums of the first two and of the last two bytes of every four, as 16-bit integers:
// what vpmaddubsw's lanes begin with.
int32_t offset_pair(__m256i bytes) {
  const __m256i twos = _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes);
  __m128i sum = _mm_add_epi16(_mm256_castsi256_si128(twos), _mm256_extracti128_si256(twos, 1));
  sum = _mm_add_epi16(sum, _mm_shuffle_epi32(sum, 0x4E));
  sum = _mm_add_epi16(sum, _mm_shuffle_epi32(sum, 0xB1));
  return _mm_cvtsi128_si32(_mm_sub_epi16(_mm_setzero_si128(), _mm_slli_epi16(sum, 3)));
}

RowScale quantise(const float* x, int64_t inputs, int64_t chunk, int8_t* plain,
                  const RowTarget& target) {
  alignas(32) float extremes[2][8];
  __m256 least = _mm256_setzero_ps();
  __m256 most = _mm256_setzero_ps();
  for (int64_t k = 0; k < inputs; k += 8) {
    const __m256 v = inputs - k >= 8 ? _mm256_loadu_ps(x + k) : load_some(x + k, inputs - k);
    least = _mm256_min_ps(v, least);  // the second operand where there is NaN
    most = _mm256_max_ps(v, most);
  }
  _mm256_store_ps(extremes[0], least);
  _mm256_store_ps(extremes[1], most);
  RowScale row = choose_scale(*std::min_element(extremes[0], extremes[0] + 8),
                              *std::max_element(extremes[1], extremes[1] + 8));

  const int64_t stride = padded(inputs);
  int8_t* const natural = chunk == 1 ? target.values : plain;
  const __m256 inverse = _mm256_set1_ps(row.inverse);
  const __m256 highest = _mm256_set1_ps(static_cast<float>(127 - row.zero_point));
  const __m256 lowest = _mm256_set1_ps(static_cast<float>(-128 - row.zero_point));
  const __m256i zero = _mm256_set1_epi32(row.zero_point);
  const auto eight = [&](int64_t k) {
    const int64_t left = inputs - k;
    if (left <= 0) return _mm256_setzero_si256();
    const __m256i mask = lanes(left);
    __m256 v = _mm256_mul_ps(_mm256_maskload_ps(x + k, mask), inverse);
    v = _mm256_max_ps(_mm256_min_ps(v, highest), lowest);
    return _mm256_and_si256(mask, _mm256_add_epi32(_mm256_cvtps_epi32(v), zero));
  };
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  for (int64_t k = 0; k < stride; k += 32) {
    const __m256i low = _mm256_packs_epi32(eight(k), eight(k + 8));
    const __m256i high = _mm256_packs_epi32(eight(k + 16), eight(k + 24));
    store_whole(natural + k, _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), order));
  }

  const __m256i ones = _mm256_set1_epi8(1);
  const __m256i pairs = _mm256_set1_epi16(1);
  const __m256i quarters = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15));
  const __m256i halves = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15));
  __m256i total = _mm256_setzero_si256();
  for (int64_t k = 0; k < stride; k += kChunk) {
    const __m256i a = load_whole(natural + k);
    const __m256i b = load_whole(natural + k + 32);
    const __m256i four_a = _mm256_madd_epi16(_mm256_maddubs_epi16(ones, a), pairs);
    const __m256i four_b = _mm256_madd_epi16(_mm256_maddubs_epi16(ones, b), pairs);
    total = _mm256_add_epi32(total, _mm256_add_epi32(four_a, four_b));
    if (chunk == 1) continue;
    if (chunk == 8) {
      const __m256i sa = _mm256_shuffle_epi8(a, quarters);
      const __m256i sb = _mm256_shuffle_epi8(b, quarters);
      store_whole(target.values + k, sa);
      store_whole(target.values + k + 32, sb);
      target.offsets32[k / 32] = offset_pair(sa);
      target.offsets32[k / 32 + 1] = offset_pair(sb);
    } else {
      __m256i eights = _mm256_permute4x64_epi64(_mm256_hadd_epi32(four_a, four_b), 0xD8);
      eights = _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_slli_epi32(eights, 3));
      store_whole(target.offsets8 + k / 8, eights);
      const __m256i sa = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(a, halves), 0xD8);
      const __m256i sb = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(b, halves), 0xD8);
      store_whole(target.values + k, _mm256_permute2x128_si256(sa, sb, 0x20));
      store_whole(target.values + k + 32, _mm256_permute2x128_si256(sa, sb, 0x31));
    }
  }
  row.sum = sum_of(total);
  return row;
}

void finish(const Layer& layer, const RowScale& scale, const float* sums, int64_t n, float value,
            int32_t integer, float* out) {
  const float bias = layer.bias ? load_float(layer.bias, n) : 0.0f;
  float y = value;
  if (layer.format == Format::kInt4Groups) {
    if (sums) {
      y -= static_cast<float>(scale.zero_point) * sums[n];
      y = y * scale.scale + bias;
    }
  } else if (layer.format == Format::kFloat32) {
    y += bias;
  } else if (sums) {
    const int32_t exact = integer - scale.zero_point * static_cast<int32_t>(sums[n]);
    y = std::fma(static_cast<float>(exact) * scale.scale, load_float(layer.scales, n), bias);
  } else {
    y = static_cast<float>(integer);
  }
  const bool is_bare = is_quantised(layer.format) && sums == nullptr;
  out[n] = is_bare ? y : std::min(std::max(y, layer.low), layer.high);
}

// 4-bit weights with one scale for each output.
template <int kM>
void int4_rows(const Layer& layer, const Activations& in, int64_t i, const float* sums,
               int64_t begin, int64_t end, float* out) {
  const __m256i low_half = _mm256_set1_epi8(15);
  const __m256i pairs = _mm256_set1_epi16(1);
  const int64_t bytes = layer.row_bytes();
  for (int64_t n = begin; n < end; n += kRowsAtOnce) {
    const int64_t count = std::min(kRowsAtOnce, end - n);
    const uint8_t* row[kRowsAtOnce];
#pragma GCC unroll 8
    for (int64_t r = 0; r < kRowsAtOnce; ++r) row[r] = layer.row(n + std::min(r, count - 1));
    __m256i integer[kM][kRowsAtOnce];
#pragma GCC unroll 8
    for (int m = 0; m < kM; ++m) {
#pragma GCC unroll 8
      for (int64_t r = 0; r < kRowsAtOnce; ++r) integer[m][r] = _mm256_setzero_si256();
    }
    for (int64_t chunk = 0; chunk * 32 < bytes; ++chunk) {
#pragma GCC unroll 8
      for (int64_t r = 0; r < kRowsAtOnce; ++r) {
        const __m256i packed = load_bytes(row[r] + chunk * 32, bytes - chunk * 32);
        const __m256i low = _mm256_and_si256(packed, low_half);
        const __m256i high = _mm256_and_si256(_mm256_srli_epi16(packed, 4), low_half);
#pragma GCC unroll 8
        for (int m = 0; m < kM; ++m) {
          const int8_t* const x = in.values + (i + m) * in.stride + chunk * kChunk;
          const __m256i products = _mm256_add_epi16(_mm256_maddubs_epi16(low, load_whole(x)),
                                                    _mm256_maddubs_epi16(high, load_whole(x + 32)));
          const __m256i dot =
              _mm256_add_epi32(load_whole(in.offsets8 + (i + m) * (in.stride / 8) + chunk * 8),
                               _mm256_madd_epi16(products, pairs));
          integer[m][r] = _mm256_add_epi32(integer[m][r], dot);
        }
      }
    }
#pragma GCC unroll 8
    for (int m = 0; m < kM; ++m) {
      for (int64_t r = 0; r < count; ++r)
        finish(layer, in.scales[i + m], sums, n + r, 0, sum_of(integer[m][r]),
               out + (i + m) * layer.outputs);
    }
  }
}

// Four floats, each the sum of one of four vectors, added in the order of sum_of().
__m128 sums_of_four(const __m256* sums) {
  __m128 half[4];
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r)
    half[r] = _mm_add_ps(_mm256_castps256_ps128(sums[r]), _mm256_extractf128_ps(sums[r], 1));
  const __m128 ab =
      _mm_add_ps(_mm_unpacklo_ps(half[0], half[1]), _mm_unpackhi_ps(half[0], half[1]));
  const __m128 cd =
      _mm_add_ps(_mm_unpacklo_ps(half[2], half[3]), _mm_unpackhi_ps(half[2], half[3]));
  return _mm_add_ps(_mm_movelh_ps(ab, cd), _mm_movehl_ps(cd, ab));
}

// finish() of four outputs of 4-bit groups.
void finish_four(const Layer& layer, const RowScale& scale, const float* sums, int64_t n, __m128 y,
                 float* out) {
  const __m128 zero_point = _mm_set1_ps(static_cast<float>(scale.zero_point));
  y = _mm_sub_ps(y, _mm_mul_ps(zero_point, _mm_loadu_ps(sums + n)));
  const __m128 bias = layer.bias ? _mm_loadu_ps(reinterpret_cast<const float*>(layer.bias + n * 4))
                                 : _mm_setzero_ps();
  y = _mm_add_ps(_mm_mul_ps(y, _mm_set1_ps(scale.scale)), bias);
  y = _mm_max_ps(_mm_set1_ps(layer.low), y);  // NaN stays
  _mm_storeu_ps(out + n, _mm_min_ps(_mm_set1_ps(layer.high), y));
}

// The scales of four chunks, from chunk `first` on, as permute_ps() takes them: of each chunk's
// first half in the lower lane, of the other half in the upper one.
template <bool kOf32>
__m256 chunk_scales(const Layer& layer, int64_t groups, int64_t output, int64_t first) {
  const uint8_t* const scales = layer.scales + output * groups * 2;
  if constexpr (kOf32) {
    alignas(16) uint8_t copy[16] = {};
    const uint8_t* from = scales + first * 4;
    const int64_t left = (layer.outputs - output) * groups * 2 - first * 4;
    if (left < 16) {
      std::memcpy(copy, from, static_cast<size_t>(left));
      from = copy;
    }
    const __m256i words =
        _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
    const __m256i to_float = _mm256_setr_epi32(16, 16, 16, 16, 0, 0, 0, 0);
    const __m256i high_word = _mm256_set1_epi32(static_cast<int>(0xFFFF0000U));
    return _mm256_castsi256_ps(_mm256_and_si256(_mm256_sllv_epi32(words, to_float), high_word));
  } else {
    const auto scale = [&](int64_t chunk) {
      return load_bfloat16(scales, std::min((first + chunk) * kChunk / layer.group, groups - 1));
    };
    const __m128 four = _mm_setr_ps(scale(0), scale(1), scale(2), scale(3));
    return _mm256_set_m128(four, four);
  }
}

// 4-bit weights with groups, which a decode step of most models is made of: four outputs and four
// chunks at a time.
template <int kM, bool kOf32>
void rows_of_groups(const Layer& layer, const Activations& in, int64_t i, const float* sums,
                    int64_t begin, int64_t end, float* out) {
  constexpr int64_t kOutputs = 4;
  constexpr int64_t kChunksAtOnce = 4;
  constexpr int64_t kAhead = 8192;  // bytes of a row's memory, and of the rows behind it
  const __m256i low_half = _mm256_set1_epi8(15);
  const __m256i pairs = _mm256_set1_epi16(1);
  const int64_t bytes = layer.row_bytes();
  const int64_t chunks = (bytes + 31) / 32;
  const int64_t groups = layer.groups();
  const int8_t* x[kM];
  const int32_t* offsets[kM];
#pragma GCC unroll 2
  for (int m = 0; m < kM; ++m) {
    x[m] = in.values + (i + m) * in.stride;
    offsets[m] = in.offsets8 + (i + m) * (in.stride / 8);
  }
  for (int64_t n = begin; n < end; n += kOutputs) {
    const int64_t count = std::min(kOutputs, end - n);
    const uint8_t* row[kOutputs];
    __m256 sum[kM][kOutputs];
#pragma GCC unroll 4
    for (int64_t r = 0; r < kOutputs; ++r) {
      row[r] = layer.row(n + std::min(r, count - 1));
#pragma GCC unroll 2
      for (int m = 0; m < kM; ++m) sum[m][r] = _mm256_setzero_ps();
    }
    int64_t first = 0;
    const auto add_chunks = [&](auto is_whole) __attribute__((always_inline)) {
      __m256 scales[kOutputs];
#pragma GCC unroll 4
      for (int64_t r = 0; r < kOutputs; ++r)
        scales[r] = chunk_scales<kOf32>(layer, groups, n + std::min(r, count - 1), first);
      const auto add_chunk = [&](auto index) __attribute__((always_inline)) {
        constexpr int kIndex = decltype(index)::value;
        constexpr bool kIsWhole = decltype(is_whole)::value;
        const int64_t chunk = first + kIndex;
        if (!kIsWhole && chunk >= chunks) return;
#pragma GCC unroll 4
        for (int64_t r = 0; r < kOutputs; ++r) {
          const uint8_t* const at = row[r] + chunk * 32;
          if constexpr (kIndex % 2 == 0) _mm_prefetch(at + kAhead, _MM_HINT_T0);
          const __m256i packed = kIsWhole ? load_whole(at) : load_bytes(at, bytes - chunk * 32);
          const __m256i low = _mm256_and_si256(packed, low_half);
          const __m256i high = _mm256_and_si256(_mm256_srli_epi16(packed, 4), low_half);
          const __m256 scale = _mm256_permute_ps(scales[r], kIndex * 0x55);
#pragma GCC unroll 2
          for (int m = 0; m < kM; ++m) {
            const int8_t* const values = x[m] + chunk * kChunk;
            const __m256i products =
                _mm256_add_epi16(_mm256_maddubs_epi16(low, load_whole(values)),
                                 _mm256_maddubs_epi16(high, load_whole(values + 32)));
            const __m256i dot = _mm256_add_epi32(load_whole(offsets[m] + chunk * 8),
                                                 _mm256_madd_epi16(products, pairs));
            sum[m][r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, sum[m][r]);
          }
        }
      };
      add_chunk(std::integral_constant<int, 0>());
      add_chunk(std::integral_constant<int, 1>());
      add_chunk(std::integral_constant<int, 2>());
      add_chunk(std::integral_constant<int, 3>());
    };
    for (; (first + kChunksAtOnce) * 32 <= bytes; first += kChunksAtOnce)
      add_chunks(std::true_type());
    if (first < chunks) add_chunks(std::false_type());
#pragma GCC unroll 2
    for (int m = 0; m < kM; ++m) {
      float* const to = out + (i + m) * layer.outputs;
      const __m128 four = sums_of_four(sum[m]);
      if (sums && count == kOutputs) {
        finish_four(layer, in.scales[i + m], sums, n, four, to);
        continue;
      }
      alignas(16) float values[kOutputs];
      _mm_store_ps(values, four);
      for (int64_t r = 0; r < count; ++r)
        finish(layer, in.scales[i + m], sums, n + r, values[r], 0, to);
    }
  }
}

template <int kM>
void int8_rows(const Layer& layer, const Activations& in, int64_t i, const float* sums,
               int64_t begin, int64_t end, float* out) {
  const auto wide = [](__m256i bytes, int half) {
    return _mm256_cvtepi8_epi16(half == 0 ? _mm256_castsi256_si128(bytes)
                                          : _mm256_extracti128_si256(bytes, 1));
  };
  for (int64_t n = begin; n < end; n += kRowsAtOnce) {
    const int64_t count = std::min(kRowsAtOnce, end - n);
    __m256i sum[kM][kRowsAtOnce];
#pragma GCC unroll 8
    for (int m = 0; m < kM; ++m) {
#pragma GCC unroll 8
      for (int64_t r = 0; r < kRowsAtOnce; ++r) sum[m][r] = _mm256_setzero_si256();
    }
    for (int64_t k = 0; k < layer.inputs; k += 32) {
#pragma GCC unroll 8
      for (int64_t r = 0; r < kRowsAtOnce; ++r) {
        const uint8_t* const row = layer.row(n + std::min(r, count - 1));
        const __m256i w = load_bytes(row + k, layer.inputs - k);
        const __m256i w0 = wide(w, 0);
        const __m256i w1 = wide(w, 1);
#pragma GCC unroll 8
        for (int m = 0; m < kM; ++m) {
          const __m256i x = load_whole(in.values + (i + m) * in.stride + k);
          sum[m][r] = _mm256_add_epi32(sum[m][r], _mm256_madd_epi16(w0, wide(x, 0)));
          sum[m][r] = _mm256_add_epi32(sum[m][r], _mm256_madd_epi16(w1, wide(x, 1)));
        }
      }
    }
#pragma GCC unroll 8
    for (int m = 0; m < kM; ++m) {
      for (int64_t r = 0; r < count; ++r)
        finish(layer, in.scales[i + m], sums, n + r, 0, sum_of(sum[m][r]),
               out + (i + m) * layer.outputs);
    }
  }
}

template <int kM>
void float_rows(const Layer& layer, const Activations& in, int64_t i, int64_t begin, int64_t end,
                float* out) {
  for (int64_t n = begin; n < end; n += kRowsAtOnce) {
    const int64_t count = std::min(kRowsAtOnce, end - n);
    __m256 sum[kM][kRowsAtOnce];
#pragma GCC unroll 8
    for (int m = 0; m < kM; ++m) {
#pragma GCC unroll 8
      for (int64_t r = 0; r < kRowsAtOnce; ++r) sum[m][r] = _mm256_setzero_ps();
    }
    for (int64_t k = 0; k < layer.inputs; k += 8) {
      const int64_t left = layer.inputs - k;
#pragma GCC unroll 8
      for (int64_t r = 0; r < kRowsAtOnce; ++r) {
        const __m256 w = load_some(layer.row(n + std::min(r, count - 1)) + k * 4, left);
#pragma GCC unroll 8
        for (int m = 0; m < kM; ++m) {
          const __m256 x = load_some(in.floats + (i + m) * in.inputs + k, left);
          sum[m][r] = _mm256_fmadd_ps(w, x, sum[m][r]);
        }
      }
    }
#pragma GCC unroll 8
    for (int m = 0; m < kM; ++m) {
      for (int64_t r = 0; r < count; ++r)
        finish(layer, {}, nullptr, n + r, sum_of(sum[m][r]), 0, out + (i + m) * layer.outputs);
    }
  }
}

template <int kM>
void some_rows(const Layer& layer, const Activations& in, int64_t i, const float* sums,
               int64_t begin, int64_t end, float* out) {
  switch (layer.format) {
    case Format::kFloat32:
      return float_rows<kM>(layer, in, i, begin, end, out);
    case Format::kInt8:
      return int8_rows<kM>(layer, in, i, sums, begin, end, out);
    case Format::kInt4:
      return int4_rows<kM>(layer, in, i, sums, begin, end, out);
    case Format::kInt4Groups:
      if (layer.group == 32) return rows_of_groups<kM, true>(layer, in, i, sums, begin, end, out);
      return rows_of_groups<kM, false>(layer, in, i, sums, begin, end, out);
  }
}

void rows(const Layer& layer, const Activations& in, const float* sums, int64_t begin, int64_t end,
          float* out) {
  int64_t i = 0;
  for (; i + 2 <= in.rows; i += 2) some_rows<2>(layer, in, i, sums, begin, end, out);
  if (i < in.rows) some_rows<1>(layer, in, i, sums, begin, end, out);
}

// columns(): the weights of 16 outputs, so that sums of products stay in the lane of their output:
// 4-bit ones as [inputs / 4][16][4] unsigned bytes, 8-bit ones as [inputs / 2][16][2] 16-bit
// integers, floats as [inputs][16]; then the scales of each group as [groups][16] floats, and rows
// of activations as 16-bit integers.
int64_t weight_room(const Layer& layer) {
  const int64_t bytes = is_int4(layer.format) ? 1 : layer.format == Format::kInt8 ? 2 : 4;
  return padded(layer.inputs) * kBlock * bytes;
}
int64_t scale_room(const Layer& layer) { return (layer.groups() * kBlock * 4 + 63) / 64 * 64; }
int64_t column_scratch(const Layer& layer) {
  return weight_room(layer) + scale_room(layer) +
         (layer.format == Format::kInt8 ? kTileRows * padded(layer.inputs) * 2 : 0);
}

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
        switch (layer.format) {
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
  const __m256i pairs = _mm256_set1_epi16(1);
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
    __m256i narrow[kM][2];
#pragma GCC unroll 8
    for (int m = 0; m < kM; ++m) {
      narrow[m][0] = narrow[m][1] = _mm256_set1_epi32(offsets[m][unit]);
      keep_order(narrow[m][0]);
      keep_order(narrow[m][1]);
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
        narrow[m][0] = _mm256_add_epi16(narrow[m][0], _mm256_maddubs_epi16(w0, activations));
        narrow[m][1] = _mm256_add_epi16(narrow[m][1], _mm256_maddubs_epi16(w1, activations));
        keep_order(narrow[m][0]);
        keep_order(narrow[m][1]);
      }
    }
    weights += 8 * 64;
    const bool ends = kGroups == Groups::kOfOneUnit || --left_in_group == 0;
#pragma GCC unroll 8
    for (int m = 0; m < kM; ++m) {
#pragma GCC unroll 2
      for (int64_t half = 0; half < 2; ++half) {
        __m256i sum = _mm256_madd_epi16(narrow[m][half], pairs);
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
  switch (tile.layer->format) {
    case Format::kFloat32:
      return tile_floats<kM>(tile, i);
    case Format::kInt8:
      return tile_int8<kM>(tile, i);
    case Format::kInt4:
      return tile_int4<kM, Groups::kNone>(tile, i);
    case Format::kInt4Groups:
      if (tile.layer->group == kGroupUnit) return tile_int4<kM, Groups::kOfOneUnit>(tile, i);
      return tile_int4<kM, Groups::kOfUnits>(tile, i);
  }
}

void columns(const Layer& layer, const Activations& in, const float* sums, int64_t begin,
             int64_t end, uint8_t* scratch, float* out) {
  float* const scales = reinterpret_cast<float*>(scratch + weight_room(layer));
  expand(layer, begin, end, scratch);
  if (layer.format == Format::kInt4Groups) {
    const int64_t groups = layer.groups();
    for (int64_t n = 0; n < kBlock; ++n) {
      const uint8_t* const row = layer.scales + std::min(begin + n, end - 1) * groups * 2;
      for (int64_t g = 0; g < groups; ++g) scales[g * kBlock + n] = load_bfloat16(row, g);
    }
  }
  int16_t* const wide =
      reinterpret_cast<int16_t*>(scratch + weight_room(layer) + scale_room(layer));
  Tile tile = {&layer, &in, scratch, scales, wide, begin, end - begin, out, {}, {}};
  if (sums) std::copy(sums + begin, sums + end, tile.sums);
  for (int64_t n = begin; layer.bias && n < end; ++n)
    tile.bias[n - begin] = load_float(layer.bias, n);
  int64_t tiles = (in.rows + kTileRows - 1) / kTileRows;
  for (int64_t i = 0; i < in.rows; --tiles) {
    const int64_t height = (in.rows - i + tiles - 1) / tiles;
    switch (height) {
      case 4:
        some_tile<4>(tile, i);
        break;
      case 3:
        some_tile<3>(tile, i);
        break;
      case 2:
        some_tile<2>(tile, i);
        break;
      default:
        some_tile<1>(tile, i);
    }
    i += height;
  }
}

}  // namespace

const Kernels kAvx2Kernels = {"avx2",  kChunk,        8, 2, kBlock, quantise, rows,
                              columns, column_scratch};

}  // namespace emm::linear
