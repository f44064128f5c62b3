// Few rows of activations on AVX2, straight from the weights.
#include <cmath>
#include <type_traits>

#include "linear/avx2.h"

namespace emm::linear::avx2 {
namespace {

constexpr int64_t kRowsAtOnce = 2;  // outputs that are computed together

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

}  // namespace

void rows(const Layer& layer, const Activations& in, const float* sums, int64_t begin, int64_t end,
          float* out) {
  int64_t i = 0;
  for (; i + 2 <= in.rows; i += 2) some_rows<2>(layer, in, i, sums, begin, end, out);
  if (i < in.rows) some_rows<1>(layer, in, i, sums, begin, end, out);
}

}  // namespace emm::linear::avx2
