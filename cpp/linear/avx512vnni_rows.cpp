#include <algorithm>
#include <type_traits>

#include "linear/avx512vnni.h"

namespace emm::linear::avx512vnni {
namespace {

constexpr int64_t kRowsAtOnce = 4;  // outputs of rows() that are computed together

// The sums of four vectors.
__m128 sum_four(__m512 a, __m512 b, __m512 c, __m512 d) {
  const auto half = [](__m512 v) {
    return _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  };
  const __m256 ab = _mm256_hadd_ps(half(a), half(b));
  const __m256 cd = _mm256_hadd_ps(half(c), half(d));
  const __m256 all = _mm256_hadd_ps(ab, cd);
  return _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1));
}
__m128i sum_four(__m512i a, __m512i b, __m512i c, __m512i d) {
  const auto half = [](__m512i v) {
    return _mm256_add_epi32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
  };
  const __m256i ab = _mm256_hadd_epi32(half(a), half(b));
  const __m256i cd = _mm256_hadd_epi32(half(c), half(d));
  const __m256i all = _mm256_hadd_epi32(ab, cd);
  return _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
}

// What remains of four outputs (`count` of them wanted) after the sums: `value`, or `integer` where
// the whole row has one scale.
void finish_four(const Layer& layer, const RowScale& scale, const float* sums, int64_t output,
                 int64_t count, __m128 value, __m128i integer, float* out) {
  const auto mask = static_cast<__mmask8>((1u << count) - 1);
  const bool is_bare = is_quantised(layer.format) && sums == nullptr;
  const bool is_whole = layer.format == Format::kInt8 || layer.format == Format::kInt4;
  __m128 y = is_whole ? _mm_cvtepi32_ps(integer) : value;
  if (!is_bare) {
    __m128 factor = _mm_set1_ps(1);
    if (is_quantised(layer.format)) {
      const __m128 weights = _mm_maskz_loadu_ps(mask, sums + output);
      factor = _mm_set1_ps(scale.scale);
      if (is_whole) {
        const __m128i zero =
            _mm_mullo_epi32(_mm_set1_epi32(scale.zero_point), _mm_cvtps_epi32(weights));
        y = _mm_mul_ps(_mm_cvtepi32_ps(_mm_sub_epi32(integer, zero)), factor);
        factor = _mm_maskz_loadu_ps(mask, layer.scales + output * 4);
      } else {
        y = _mm_fnmadd_ps(_mm_set1_ps(static_cast<float>(scale.zero_point)), weights, y);
      }
    }
    const __m128 bias =
        layer.bias ? _mm_maskz_loadu_ps(mask, layer.bias + output * 4) : _mm_setzero_ps();
    // As XNNPACK rounds: see reference.cpp.
    y = is_whole ? _mm_fmadd_ps(y, factor, bias) : _mm_add_ps(_mm_mul_ps(y, factor), bias);
    y = _mm_max_ps(_mm_set1_ps(layer.low), y);  // NaN stays
    y = _mm_min_ps(_mm_set1_ps(layer.high), y);
  }
  _mm_mask_storeu_ps(out + output, mask, y);
}

// The bfloat16 scales of four groups of four outputs as floats, an output each in the 128 bits of a
// group. `count` of the groups are there.
inline __attribute__((always_inline)) __m512
scales_of_four(const uint8_t* const (&scales)[kRowsAtOnce], int64_t count) {
  const auto load = [&](int r) {
    if (count >= 4) return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(scales[r]));
    return _mm_maskz_loadu_epi16(static_cast<__mmask8>((1u << count) - 1), scales[r]);
  };
  const __m256i all =
      _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_unpacklo_epi64(load(0), load(1))),
                              _mm_unpacklo_epi64(load(2), load(3)), 1);
  // To the high halves of 32-bit lanes; zeros to the low ones.
  const __m512i places = _mm512_set_epi16(15, 0, 11, 0, 7, 0, 3, 0, 14, 0, 10, 0, 6, 0, 2, 0,  //
                                          13, 0, 9, 0, 5, 0, 1, 0, 12, 0, 8, 0, 4, 0, 0, 0);
  return _mm512_castsi512_ps(
      _mm512_maskz_permutexvar_epi16(0xAAAAAAAA, places, _mm512_castsi256_si512(all)));
}

enum class Groups : uint8_t { kNone, kOf32, kLarger };

// 4-bit weights of four outputs at a time. Sums of integers are exact, and floats are added group
// by group as in columns(), so that a row has the same bits among few and among many.
template <int kM, Groups kGroups>
void int4_rows(const Layer& layer, const Activations& in, int64_t i, const float* sums,
               int64_t begin, int64_t end, float* out) {
  // Few rows wait for memory, and more lines can be on their way to the second cache than to the
  // first.
  constexpr _mm_hint kHint = kM <= 2 ? _MM_HINT_T1 : _MM_HINT_T0;
  const __m512i low_half = _mm512_set1_epi8(15);
  const int64_t bytes = layer.row_bytes();
  const int64_t chunks = (bytes + 63) / 64;
  const int64_t groups = layer.groups();
  const int64_t scale_bytes = kGroups == Groups::kNone ? 0 : groups * 2;
  const int64_t halves_of_group = kGroups == Groups::kLarger ? layer.group / 64 : 0;
  const int8_t* x[kM];
  const int32_t* offsets[kM];
  for (int m = 0; m < kM; ++m) {
    x[m] = in.values + (i + m) * in.stride;
    offsets[m] = in.offsets8 + (i + m) * (in.stride / 8);
  }
  for (int64_t n = begin; n < end; n += kRowsAtOnce) {
    const int64_t count = std::min(kRowsAtOnce, end - n);
    const auto mask = static_cast<__mmask8>((1u << count) - 1);
    const uint8_t* row[kRowsAtOnce];
    const uint8_t* scales[kRowsAtOnce];
#pragma GCC unroll 8
    for (int64_t r = 0; r < kRowsAtOnce; ++r) {
      const int64_t output = n + std::min(r, count - 1);
      row[r] = layer.row(output);
      scales[r] = layer.scales + output * scale_bytes;
      _mm_prefetch(reinterpret_cast<const char*>(scales[r] + kAhead / 8), kHint);
    }
    __m128 total[kM];
    __m128i integer[kM];
#pragma GCC unroll 8
    for (int m = 0; m < kM; ++m) {
      integer[m] = _mm_setzero_si128();
      total[m] = _mm_setzero_ps();
      if (kGroups == Groups::kNone || sums == nullptr) continue;
      const __m128 zero = _mm_set1_ps(-static_cast<float>(in.scales[i + m].zero_point));
      total[m] = _mm_mul_ps(zero, _mm_maskz_loadu_ps(mask, sums + n));
    }
    int64_t left_in_group = halves_of_group;
    const auto add_chunk = [&](int64_t chunk, const __m512i(&packed)[kRowsAtOnce],
                               int64_t units) __attribute__((always_inline)) {
      __m512i low[kRowsAtOnce];
      __m512i high[kRowsAtOnce];
#pragma GCC unroll 8
      for (int64_t r = 0; r < kRowsAtOnce; ++r) {
        low[r] = _mm512_and_si512(packed[r], low_half);
        high[r] = _mm512_and_si512(_mm512_srli_epi16(packed[r], 4), low_half);
      }
      __m512 scale = _mm512_setzero_ps();
      if constexpr (kGroups == Groups::kOf32) scale = scales_of_four(scales, units);
      const int64_t left_before = left_in_group;
#pragma GCC unroll 8
      for (int m = 0; m < kM; ++m) {
        const __m512i even = _mm512_loadu_si512(x[m] + chunk * 128);
        const __m512i odd = _mm512_loadu_si512(x[m] + chunk * 128 + 64);
        const __m512i offset = _mm512_loadu_si512(offsets[m] + chunk * 16);
        __m512i dot[kRowsAtOnce];
#pragma GCC unroll 8
        for (int64_t r = 0; r < kRowsAtOnce; ++r) {
          dot[r] = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(offset, low[r], even), high[r], odd);
        }
        const __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(dot[0], dot[1]),
                                            _mm512_unpackhi_epi32(dot[0], dot[1]));
        const __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(dot[2], dot[3]),
                                            _mm512_unpackhi_epi32(dot[2], dot[3]));
        // 128 bits for each 32 inputs, an output in each lane of them.
        const __m512i unit =
            _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
        if constexpr (kGroups == Groups::kOf32) {
          const __m512 floats = _mm512_cvtepi32_ps(unit);
          const auto add = [&](auto index) __attribute__((always_inline)) {
            constexpr int kIndex = decltype(index)::value;
            if (kIndex >= units) return;  // behind the last group
            total[m] = _mm_fmadd_ps(_mm512_extractf32x4_ps(floats, kIndex),
                                    _mm512_extractf32x4_ps(scale, kIndex), total[m]);
          };
          add(std::integral_constant<int, 0>());
          add(std::integral_constant<int, 1>());
          add(std::integral_constant<int, 2>());
          add(std::integral_constant<int, 3>());
        } else {
          const __m512i pairs =
              _mm512_add_epi32(unit, _mm512_shuffle_i32x4(unit, unit, _MM_PERM_CDAB));
          const __m128i half[2] = {_mm512_castsi512_si128(pairs),
                                   _mm512_extracti32x4_epi32(pairs, 2)};
          int64_t left = left_before;
          const uint8_t* at[kRowsAtOnce];
          std::copy(scales, scales + kRowsAtOnce, at);
#pragma GCC unroll 2
          for (int h = 0; h < 2; ++h) {
            integer[m] = _mm_add_epi32(integer[m], half[h]);
            if (kGroups == Groups::kNone || h * 2 >= units || --left > 0) continue;
            const __m128 of_group = _mm_setr_ps(load_bfloat16(at[0], 0), load_bfloat16(at[1], 0),
                                                load_bfloat16(at[2], 0), load_bfloat16(at[3], 0));
            total[m] = _mm_fmadd_ps(_mm_cvtepi32_ps(integer[m]), of_group, total[m]);
            integer[m] = _mm_setzero_si128();
            left = halves_of_group;
            for (const uint8_t*& scales_at : at) scales_at += 2;
          }
          left_in_group = left;
          if (m == kM - 1) std::copy(at, at + kRowsAtOnce, scales);
        }
      }
      if constexpr (kGroups == Groups::kOf32) {
#pragma GCC unroll 8
        for (const uint8_t*& at : scales) at += 8;
      }
    };
    // In the order of addresses: the four rows lie one behind the other.
    const auto prefetch = [&](int64_t chunk, int64_t line) {
      const uint8_t* const at = row[0] + (chunk * kRowsAtOnce + line) * 64;
      _mm_prefetch(reinterpret_cast<const char*>(at + kAhead), kHint);
    };
    int64_t chunk = 0;
    for (; (chunk + 1) * 64 <= bytes; ++chunk) {
      __m512i packed[kRowsAtOnce];
#pragma GCC unroll 8
      for (int64_t r = 0; r < kRowsAtOnce; ++r) {
        packed[r] = _mm512_loadu_si512(row[r] + chunk * 64);
        prefetch(chunk, r);
      }
      add_chunk(chunk, packed, 4);
    }
    if (chunk < chunks) {
      __m512i packed[kRowsAtOnce];
      const __mmask64 rest = bytes_mask(bytes - chunk * 64);
#pragma GCC unroll 8
      for (int64_t r = 0; r < kRowsAtOnce; ++r)
        packed[r] = _mm512_maskz_loadu_epi8(rest, row[r] + chunk * 64);
      prefetch(chunk, 0);
      prefetch(chunk, 1);
      add_chunk(chunk, packed, (layer.inputs - chunk * 128 + 31) / 32);
    }
#pragma GCC unroll 8
    for (int m = 0; m < kM; ++m) {
      float* const to = out + (i + m) * layer.outputs;
      if (kGroups == Groups::kNone || sums == nullptr) {
        finish_four(layer, in.scales[i + m], sums, n, count, total[m], integer[m], to);
        continue;
      }
      const __m128 bias =
          layer.bias ? _mm_maskz_loadu_ps(mask, layer.bias + n * 4) : _mm_setzero_ps();
      __m128 y = _mm_add_ps(_mm_mul_ps(total[m], _mm_set1_ps(in.scales[i + m].scale)), bias);
      y = _mm_max_ps(_mm_set1_ps(layer.low), y);  // NaN stays
      y = _mm_min_ps(_mm_set1_ps(layer.high), y);
      _mm_mask_storeu_ps(to + n, mask, y);
    }
  }
}

template <int kM>
void int8_rows(const Layer& layer, const Activations& in, int64_t i, const float* sums,
               int64_t begin, int64_t end, float* out) {
  const __m512i flip = _mm512_set1_epi8(-128);
  for (int64_t n = begin; n < end; n += kRowsAtOnce) {
    const int64_t count = std::min(kRowsAtOnce, end - n);
    __m512i sum[kM][kRowsAtOnce];
#pragma GCC unroll 8
    for (int m = 0; m < kM; ++m) {
#pragma GCC unroll 8
      for (int64_t r = 0; r < kRowsAtOnce; ++r) sum[m][r] = _mm512_setzero_si512();
    }
    const uint8_t* row[kRowsAtOnce];
#pragma GCC unroll 8
    for (int64_t r = 0; r < kRowsAtOnce; ++r) row[r] = layer.row(n + std::min(r, count - 1));
    const auto add_chunk = [&](int64_t k, __mmask64 mask) __attribute__((always_inline)) {
#pragma GCC unroll 8
      for (int64_t r = 0; r < kRowsAtOnce; ++r) {
        const __m512i w = _mm512_xor_si512(_mm512_maskz_loadu_epi8(mask, row[r] + k), flip);
        // In the order of addresses, as in int4_rows().
        const uint8_t* const ahead = row[0] + k * kRowsAtOnce + r * 64 + kAhead;
        _mm_prefetch(reinterpret_cast<const char*>(ahead), _MM_HINT_T0);
#pragma GCC unroll 8
        for (int m = 0; m < kM; ++m) {
          const __m512i x = _mm512_loadu_si512(in.values + (i + m) * in.stride + k);
          sum[m][r] = _mm512_dpbusd_epi32(sum[m][r], w, x);
        }
      }
    };
    int64_t k = 0;
    for (; k + 64 <= layer.inputs; k += 64) add_chunk(k, ~__mmask64{0});
    if (k < layer.inputs) add_chunk(k, bytes_mask(layer.inputs - k));
#pragma GCC unroll 8
    for (int m = 0; m < kM; ++m) {
      const __m128i dot = sum_four(sum[m][0], sum[m][1], sum[m][2], sum[m][3]);
      const __m128i offset = _mm_set1_epi32(128 * in.scales[i + m].sum);
      finish_four(layer, in.scales[i + m], sums, n, count, _mm_setzero_ps(),
                  _mm_sub_epi32(dot, offset), out + (i + m) * layer.outputs);
    }
  }
}

template <int kM>
void float_rows(const Layer& layer, const Activations& in, int64_t i, int64_t begin, int64_t end,
                float* out) {
  for (int64_t n = begin; n < end; n += kRowsAtOnce) {
    const int64_t count = std::min(kRowsAtOnce, end - n);
    __m512 sum[kM][kRowsAtOnce];
#pragma GCC unroll 8
    for (int m = 0; m < kM; ++m) {
#pragma GCC unroll 8
      for (int64_t r = 0; r < kRowsAtOnce; ++r) sum[m][r] = _mm512_setzero_ps();
    }
    const uint8_t* row[kRowsAtOnce];
#pragma GCC unroll 8
    for (int64_t r = 0; r < kRowsAtOnce; ++r) row[r] = layer.row(n + std::min(r, count - 1));
    const auto add_chunk = [&](int64_t k, __mmask16 mask) __attribute__((always_inline)) {
#pragma GCC unroll 8
      for (int64_t r = 0; r < kRowsAtOnce; ++r) {
        const __m512 w = _mm512_maskz_loadu_ps(mask, row[r] + k * 4);
        const uint8_t* const ahead = row[0] + (k * 4 * kRowsAtOnce + r * 64) + kAhead;
        _mm_prefetch(reinterpret_cast<const char*>(ahead), _MM_HINT_T0);
#pragma GCC unroll 8
        for (int m = 0; m < kM; ++m) {
          const __m512 x = _mm512_maskz_loadu_ps(mask, in.floats + (i + m) * in.inputs + k);
          sum[m][r] = _mm512_fmadd_ps(w, x, sum[m][r]);
        }
      }
    };
    int64_t k = 0;
    for (; k + 16 <= layer.inputs; k += 16) add_chunk(k, 0xFFFF);
    if (k < layer.inputs) add_chunk(k, lanes(layer.inputs - k));
#pragma GCC unroll 8
    for (int m = 0; m < kM; ++m) {
      finish_four(layer, {}, nullptr, n, count,
                  sum_four(sum[m][0], sum[m][1], sum[m][2], sum[m][3]), _mm_setzero_si128(),
                  out + (i + m) * layer.outputs);
    }
  }
}

template <int kM>
void group_rows(const Layer& layer, const Activations& in, int64_t i, const float* sums,
                int64_t begin, int64_t end, float* out) {
  if constexpr (kM == 1) {
    if (layer.group == 32 && layer.inputs % 64 == 0 && sums != nullptr) {
      const int64_t middle = begin + (end - begin) / kWide * kWide;
      one_row(layer, in, i, sums, begin, middle, out);
      begin = middle;
    }
  }
  if (layer.group == 32) return int4_rows<kM, Groups::kOf32>(layer, in, i, sums, begin, end, out);
  return int4_rows<kM, Groups::kLarger>(layer, in, i, sums, begin, end, out);
}

template <int kM>
void rows_of_any(const Layer& layer, const Activations& in, int64_t i, const float* sums,
                 int64_t begin, int64_t end, float* out) {
  switch (layer.format) {
    case Format::kFloat32:
      return float_rows<kM>(layer, in, i, begin, end, out);
    case Format::kInt8:
      return int8_rows<kM>(layer, in, i, sums, begin, end, out);
    case Format::kInt4:
      return int4_rows<kM, Groups::kNone>(layer, in, i, sums, begin, end, out);
    case Format::kInt4Groups:
      return group_rows<kM>(layer, in, i, sums, begin, end, out);
  }
}

template <int kM>
void some_rows(const Layer& layer, const Activations& in, int64_t i, const float* sums,
               int64_t begin, int64_t end, float* out) {
  // Only for the format that is used by default there is code for each number of rows.
  if constexpr (kM == 2) {
    if (layer.format == Format::kInt4Groups)
      return group_rows<kM>(layer, in, i, sums, begin, end, out);
    for (int m = 0; m < kM; ++m) some_rows<1>(layer, in, i + m, sums, begin, end, out);
  } else {
    return rows_of_any<kM>(layer, in, i, sums, begin, end, out);
  }
}
}  // namespace

void rows(const Layer& layer, const Activations& in, const float* sums, int64_t begin, int64_t end,
          float* out) {
  int64_t i = 0;
  for (; i + 4 <= in.rows; i += 4) some_rows<4>(layer, in, i, sums, begin, end, out);
  if (in.rows - i >= 2) {
    some_rows<2>(layer, in, i, sums, begin, end, out);
    i += 2;
  }
  if (in.rows - i == 1) some_rows<1>(layer, in, i, sums, begin, end, out);
}

}  // namespace emm::linear::avx512vnni
