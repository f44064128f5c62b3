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
  if (layer.format == Format::kFloat32) {
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

// What four outputs have in common with their groups: sums of integers are exact, and floats are
// added group by group as in columns(), so that a row has the same bits among few and among many.
struct FourOutputs {
  const uint8_t* row[4];
  const uint8_t* scales[4];
  const uint8_t* scales_end;

  FourOutputs(const Layer& layer, int64_t groups, int64_t n, int64_t count)
      : scales_end(layer.scales + layer.outputs * groups * 2) {
#pragma GCC unroll 4
    for (int64_t r = 0; r < 4; ++r) {
      const int64_t output = n + std::min(r, count - 1);
      row[r] = layer.row(output);
      scales[r] = layer.scales + output * groups * 2;
    }
  }

  // Of eight groups from `first` on: each vector has those of two groups for four outputs.
  void load_scales(int64_t first, __m128i (&pairs)[4]) const {
    __m128i eight[4];
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) {
      alignas(16) uint8_t copy[16] = {};
      const uint8_t* from = scales[r] + first * 2;
      if (scales_end - from < 16) {
        std::memcpy(copy, from, static_cast<size_t>(scales_end - from));
        from = copy;
      }
      eight[r] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    }
    const __m128i ab_low = _mm_unpacklo_epi16(eight[0], eight[1]);
    const __m128i ab_high = _mm_unpackhi_epi16(eight[0], eight[1]);
    const __m128i cd_low = _mm_unpacklo_epi16(eight[2], eight[3]);
    const __m128i cd_high = _mm_unpackhi_epi16(eight[2], eight[3]);
    pairs[0] = _mm_unpacklo_epi32(ab_low, cd_low);
    pairs[1] = _mm_unpackhi_epi32(ab_low, cd_low);
    pairs[2] = _mm_unpacklo_epi32(ab_high, cd_high);
    pairs[3] = _mm_unpackhi_epi32(ab_high, cd_high);
  }

  __m128 scales_of(int64_t group) const {
    return _mm_setr_ps(load_bfloat16(scales[0], group), load_bfloat16(scales[1], group),
                       load_bfloat16(scales[2], group), load_bfloat16(scales[3], group));
  }
};

// finish() of four outputs of 4-bit groups, from which the zero point's part was taken.
void finish_four(const Layer& layer, float scale, int64_t n, int64_t count, __m128 y, float* out) {
  alignas(16) float bias[4] = {};
  if (layer.bias) std::memcpy(bias, layer.bias + n * 4, static_cast<size_t>(count) * 4);
  y = _mm_add_ps(_mm_mul_ps(y, _mm_set1_ps(scale)), _mm_load_ps(bias));
  y = _mm_max_ps(_mm_set1_ps(layer.low), y);  // NaN stays
  y = _mm_min_ps(_mm_set1_ps(layer.high), y);
  if (count == 4) return _mm_storeu_ps(out + n, y);
  _mm_store_ps(bias, y);
  std::memcpy(out + n, bias, static_cast<size_t>(count) * 4);
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
  const __m256i ones = _mm256_set1_epi16(1);
  const int64_t bytes = layer.row_bytes();
  const int64_t chunks = (bytes + 31) / 32;
  const int64_t groups = layer.groups();
  const int64_t group_chunks = layer.group / kChunk;  // 0 for groups of 32
  const int8_t* x[kM];
  const int32_t* offsets[kM];
#pragma GCC unroll 2
  for (int m = 0; m < kM; ++m) {
    x[m] = in.values + (i + m) * in.stride;
    offsets[m] = in.offsets8 + (i + m) * (in.stride / 8);
  }
  for (int64_t n = begin; n < end; n += kOutputs) {
    const int64_t count = std::min(kOutputs, end - n);
    const FourOutputs four(layer, groups, n, count);
    __m128 total[kM];
    __m128i integer[kM];
#pragma GCC unroll 2
    for (int m = 0; m < kM; ++m) {
      alignas(16) float of_weights[kOutputs] = {};
      if (sums) std::memcpy(of_weights, sums + n, static_cast<size_t>(count) * 4);
      const __m128 zero = _mm_set1_ps(-static_cast<float>(in.scales[i + m].zero_point));
      total[m] = sums ? _mm_mul_ps(zero, _mm_load_ps(of_weights)) : _mm_setzero_ps();
      integer[m] = _mm_setzero_si128();
    }
    int64_t first = 0;
    int64_t left_in_group = group_chunks;
    int64_t group = 0;
    const auto add_chunks = [&](auto is_whole) __attribute__((always_inline)) {
      __m128i pairs[kChunksAtOnce];
      if constexpr (kOf32) four.load_scales(first * 2, pairs);
      const auto add_chunk = [&](auto index) __attribute__((always_inline)) {
        constexpr int kIndex = decltype(index)::value;
        constexpr bool kIsWhole = decltype(is_whole)::value;
        const int64_t chunk = first + kIndex;
        if (!kIsWhole && chunk >= chunks) return;
        __m256i dot[kM][kOutputs];
#pragma GCC unroll 4
        for (int64_t r = 0; r < kOutputs; ++r) {
          const uint8_t* const at = four.row[r] + chunk * 32;
          if constexpr (kIndex % 2 == 0)
            _mm_prefetch(four.row[0] + (first + kIndex) * 128 + r * 64 + kAhead, _MM_HINT_T0);
          const __m256i packed = kIsWhole ? load_whole(at) : load_bytes(at, bytes - chunk * 32);
          const __m256i low = _mm256_and_si256(packed, low_half);
          const __m256i high = _mm256_and_si256(_mm256_srli_epi16(packed, 4), low_half);
#pragma GCC unroll 2
          for (int m = 0; m < kM; ++m) {
            const int8_t* const values = x[m] + chunk * kChunk;
            const __m256i products =
                _mm256_add_epi16(_mm256_maddubs_epi16(low, load_whole(values)),
                                 _mm256_maddubs_epi16(high, load_whole(values + 32)));
            dot[m][r] = _mm256_add_epi32(load_whole(offsets[m] + chunk * 8),
                                         _mm256_madd_epi16(products, ones));
          }
        }
#pragma GCC unroll 2
        for (int m = 0; m < kM; ++m) {
          // The first 32 inputs in the lower lane, the others in the upper one, an output each.
          const __m256i units = _mm256_hadd_epi32(_mm256_hadd_epi32(dot[m][0], dot[m][1]),
                                                  _mm256_hadd_epi32(dot[m][2], dot[m][3]));
          if constexpr (kOf32) {
            const __m256 scale =
                _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(pairs[kIndex]), 16));
            const __m256 floats = _mm256_cvtepi32_ps(units);
            total[m] = _mm_fmadd_ps(_mm256_castps256_ps128(floats), _mm256_castps256_ps128(scale),
                                    total[m]);
            // Behind the last group lies the scale of another output.
            if (!kIsWhole && chunk * 2 + 1 >= groups) continue;
            total[m] = _mm_fmadd_ps(_mm256_extractf128_ps(floats, 1),
                                    _mm256_extractf128_ps(scale, 1), total[m]);
          } else {
            integer[m] = _mm_add_epi32(
                integer[m],
                _mm_add_epi32(_mm256_castsi256_si128(units), _mm256_extracti128_si256(units, 1)));
          }
        }
        if constexpr (!kOf32) {
          if (--left_in_group > 0) return;
          const __m128 scale = four.scales_of(group++);
#pragma GCC unroll 2
          for (int m = 0; m < kM; ++m) {
            total[m] = _mm_fmadd_ps(_mm_cvtepi32_ps(integer[m]), scale, total[m]);
            integer[m] = _mm_setzero_si128();
          }
          left_in_group = group_chunks;
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
      if (sums) {
        finish_four(layer, in.scales[i + m].scale, n, count, total[m], to);
      } else {
        alignas(16) float bare[kOutputs];
        _mm_store_ps(bare, total[m]);
        std::memcpy(to + n, bare, static_cast<size_t>(count) * 4);
      }
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
  if (layer.format == Format::kInt4Groups) {
    if (layer.group == 32) return rows_of_groups<kM, true>(layer, in, i, sums, begin, end, out);
    return rows_of_groups<kM, false>(layer, in, i, sums, begin, end, out);
  }
  // Only for the format that is used by default there is code for two rows.
  for (int m = 0; m < kM; ++m) {
    if (layer.format == Format::kFloat32) float_rows<1>(layer, in, i + m, begin, end, out);
    if (layer.format == Format::kInt8) int8_rows<1>(layer, in, i + m, sums, begin, end, out);
    if (layer.format == Format::kInt4) int4_rows<1>(layer, in, i + m, sums, begin, end, out);
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
