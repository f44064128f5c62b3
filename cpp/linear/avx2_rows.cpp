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
  const uint8_t* row[4] = {};
  const uint8_t* scales[4] = {};
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

  // Of eight groups from `first` on, a vector of four outputs each.
  void load_scales(int64_t first, __m128 (&of_group)[8]) const {
    __m128i eight[4];
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) eight[r] = eight_scales(scales[r] + first * 2);
    const __m128i zero = _mm_setzero_si128();
    const __m128i ab[2] = {_mm_unpacklo_epi16(eight[0], eight[1]),
                           _mm_unpackhi_epi16(eight[0], eight[1])};
    const __m128i cd[2] = {_mm_unpacklo_epi16(eight[2], eight[3]),
                           _mm_unpackhi_epi16(eight[2], eight[3])};
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const __m128i low = _mm_unpacklo_epi32(ab[half], cd[half]);
      const __m128i high = _mm_unpackhi_epi32(ab[half], cd[half]);
      of_group[half * 4] = _mm_castsi128_ps(_mm_unpacklo_epi16(zero, low));
      of_group[half * 4 + 1] = _mm_castsi128_ps(_mm_unpackhi_epi16(zero, low));
      of_group[half * 4 + 2] = _mm_castsi128_ps(_mm_unpacklo_epi16(zero, high));
      of_group[half * 4 + 3] = _mm_castsi128_ps(_mm_unpackhi_epi16(zero, high));
    }
  }

  __m128 scales_of(int64_t group) const {
    return _mm_setr_ps(load_bfloat16(scales[0], group), load_bfloat16(scales[1], group),
                       load_bfloat16(scales[2], group), load_bfloat16(scales[3], group));
  }

 private:
  __m128i eight_scales(const uint8_t* from) const {
    if (scales_end - from >= 16) [[likely]]
      return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    alignas(16) uint8_t copy[16] = {};
    if (from < scales_end) std::memcpy(copy, from, static_cast<size_t>(scales_end - from));
    return _mm_load_si128(reinterpret_cast<const __m128i*>(copy));
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

// Of four outputs the sums of the four pairs in each half, side by side: 16 products of a value
// below 16 and of one byte stay within 16 bits.
__m256i add_across(const __m256i (&of)[4]) {
  const __m256i ab =
      _mm256_add_epi16(_mm256_unpacklo_epi32(of[0], of[1]), _mm256_unpackhi_epi32(of[0], of[1]));
  const __m256i cd =
      _mm256_add_epi16(_mm256_unpacklo_epi32(of[2], of[3]), _mm256_unpackhi_epi32(of[2], of[3]));
  return _mm256_add_epi16(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
}

// 4-bit weights with groups, which a decode step of most models is made of: four outputs at a time.
template <int kM, bool kOf32>
void rows_of_groups(const Layer& layer, const Activations& in, int64_t i, const float* sums,
                    int64_t begin, int64_t end, float* out) {
  constexpr int64_t kOutputs = 4;
  constexpr int64_t kAhead = 8192;  // bytes of a row's memory, and of the rows behind it
  const __m256i low_half = _mm256_set1_epi8(15);
  const __m256i ones = _mm256_set1_epi16(1);
  const __m256i spread = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
  const int64_t groups = layer.groups();
  const int64_t group_chunks = layer.group / kChunk;  // 0 for groups of 32
  const int8_t* x[kM];
  const int32_t* offsets[kM];
#pragma GCC unroll 2
  for (int m = 0; m < kM; ++m) {
    x[m] = in.values + (i + m) * in.stride;
    offsets[m] = in.offsets32 + (i + m) * (in.stride / 32);
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
    // Two groups or a part of one, the first 32 inputs in the lower half.
    const auto units_of = [&](int64_t chunk, auto load,
                              __m256i(&units)[kM]) __attribute__((always_inline)) {
      __m256i products[kM][kOutputs];
#pragma GCC unroll 4
      for (int64_t r = 0; r < kOutputs; ++r) {
        const __m256i packed = load(four.row[r] + chunk * 32);
        const __m256i low = _mm256_and_si256(packed, low_half);
        const __m256i high = _mm256_and_si256(_mm256_srli_epi16(packed, 4), low_half);
#pragma GCC unroll 2
        for (int m = 0; m < kM; ++m) {
          const int8_t* const values = x[m] + chunk * kChunk;
          products[m][r] = _mm256_add_epi16(_mm256_maddubs_epi16(low, load_whole(values)),
                                            _mm256_maddubs_epi16(high, load_whole(values + 32)));
        }
      }
#pragma GCC unroll 2
      for (int m = 0; m < kM; ++m) {
        int64_t two;
        std::memcpy(&two, offsets[m] + chunk * 2, sizeof two);
        const __m256i offset =
            _mm256_permutevar8x32_epi32(_mm256_castsi128_si256(_mm_cvtsi64_si128(two)), spread);
        units[m] = _mm256_add_epi32(_mm256_madd_epi16(add_across(products[m]), ones), offset);
      }
    };
    const auto whole = [](const uint8_t* at)
                           __attribute__((always_inline)) { return load_whole(at); };
    const auto half = [](const uint8_t* at) __attribute__((always_inline)) {
      return _mm256_zextsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
    };
    const auto prefetch = [&](int64_t chunk) __attribute__((always_inline)) {
      // The four rows lie one behind the other.
      _mm_prefetch(four.row[0] + chunk * 128 + kAhead, _MM_HINT_T0);
      _mm_prefetch(four.row[0] + chunk * 128 + 64 + kAhead, _MM_HINT_T0);
    };
    __m256i units[kM];
    if constexpr (kOf32) {
      __m128 scales[8];
      const auto add_lower = [&](int64_t group) __attribute__((always_inline)) {
#pragma GCC unroll 2
        for (int m = 0; m < kM; ++m)
          total[m] = _mm_fmadd_ps(_mm_cvtepi32_ps(_mm256_castsi256_si128(units[m])),
                                  scales[group % 8], total[m]);
      };
      const auto add_upper = [&](int64_t group) __attribute__((always_inline)) {
#pragma GCC unroll 2
        for (int m = 0; m < kM; ++m)
          total[m] = _mm_fmadd_ps(_mm_cvtepi32_ps(_mm256_extracti128_si256(units[m], 1)),
                                  scales[group % 8], total[m]);
      };
      for (int64_t chunk = 0; chunk < groups / 2; ++chunk) {
        if (chunk % 4 == 0) four.load_scales(chunk * 2, scales);
        prefetch(chunk);
        units_of(chunk, whole, units);
        add_lower(chunk * 2);
        add_upper(chunk * 2 + 1);
      }
      if (groups % 2 != 0) {
        const int64_t chunk = groups / 2;
        if (chunk % 4 == 0) four.load_scales(chunk * 2, scales);
        units_of(chunk, half, units);
        add_lower(chunk * 2);
      }
    } else {
      int64_t chunk = 0;
      for (int64_t group = 0; group < groups; ++group) {
        for (const int64_t last = chunk + group_chunks; chunk < last; ++chunk) {
          prefetch(chunk);
          units_of(chunk, whole, units);
#pragma GCC unroll 2
          for (int m = 0; m < kM; ++m) {
            integer[m] =
                _mm_add_epi32(integer[m], _mm_add_epi32(_mm256_castsi256_si128(units[m]),
                                                        _mm256_extracti128_si256(units[m], 1)));
          }
        }
        const __m128 scale = four.scales_of(group);
#pragma GCC unroll 2
        for (int m = 0; m < kM; ++m) {
          total[m] = _mm_fmadd_ps(_mm_cvtepi32_ps(integer[m]), scale, total[m]);
          integer[m] = _mm_setzero_si128();
        }
      }
    }
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
