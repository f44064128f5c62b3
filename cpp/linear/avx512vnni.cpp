// Kernels for AVX-512 F, BW, VL, DQ and VNNI. Weights are the unsigned operand of vpdpbusd, with an
// offset (8 or 128) that the rows' sums take off again; the activations are the signed one.
#include <immintrin.h>

#include <algorithm>
#include <type_traits>

#include "linear/kernels.h"

namespace emm::linear {
namespace {

constexpr int64_t kBlock = 32;  // outputs of columns()
constexpr int kTileRows = 6;
// Weights come from memory once in a decode step, through small pages, at whose ends the processor
// stops looking ahead.
constexpr int64_t kAhead = 8192;
constexpr int64_t kRowsAtOnce = 4;  // outputs of rows() that are computed together

__mmask16 lanes(int64_t count) {
  return static_cast<__mmask16>(count >= 16 ? 0xFFFF : (1u << std::max<int64_t>(count, 0)) - 1);
}
__mmask64 bytes_mask(int64_t count) {
  return count >= 64 ? ~__mmask64{0} : (__mmask64{1} << std::max<int64_t>(count, 0)) - 1;
}

RowScale quantise(const float* x, int64_t inputs, int64_t chunk, int8_t* plain,
                  const RowTarget& target) {
  __m512 least = _mm512_setzero_ps();
  __m512 most = _mm512_setzero_ps();
  int64_t k = 0;
  for (; k + 16 <= inputs; k += 16) {
    const __m512 v = _mm512_loadu_ps(x + k);
    least = _mm512_min_ps(v, least);  // the second operand where there is NaN
    most = _mm512_max_ps(v, most);
  }
  if (k < inputs) {
    const __m512 v = _mm512_maskz_loadu_ps(lanes(inputs - k), x + k);
    least = _mm512_min_ps(v, least);
    most = _mm512_max_ps(v, most);
  }
  RowScale row = choose_scale(_mm512_reduce_min_ps(least), _mm512_reduce_max_ps(most));

  const int64_t stride = padded(inputs);
  int8_t* const natural = chunk == 1 ? target.values : plain;
  const __m512 inverse = _mm512_set1_ps(row.inverse);
  const __m512 highest = _mm512_set1_ps(static_cast<float>(127 - row.zero_point));
  const __m512 lowest = _mm512_set1_ps(static_cast<float>(-128 - row.zero_point));
  const __m512i zero = _mm512_set1_epi32(row.zero_point);
  const auto quantised = [&](__m512 v) {
    v = _mm512_max_ps(_mm512_min_ps(_mm512_mul_ps(v, inverse), highest), lowest);
    return _mm512_add_epi32(_mm512_cvtps_epi32(v), zero);
  };
  const auto store = [&](__mmask16 mask, __m512i q) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(natural + k), _mm512_maskz_cvtepi32_epi8(mask, q));
  };
  for (k = 0; k + 16 <= inputs; k += 16) store(0xFFFF, quantised(_mm512_loadu_ps(x + k)));
  if (k < inputs) {
    const __mmask16 mask = lanes(inputs - k);
    store(mask, quantised(_mm512_maskz_loadu_ps(mask, x + k)));
    k += 16;
  }
  for (; k < stride; k += 16) store(0, zero);

  const __m512i ones = _mm512_set1_epi8(1);
  __m512i total = _mm512_setzero_si512();
  const __m512i halves =
      _mm512_broadcast_i32x4(_mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15));
  const __m512i quarters =
      _mm512_broadcast_i32x4(_mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15));
  const __m512i even = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14);
  const __m512i odd = _mm512_setr_epi64(1, 3, 5, 7, 9, 11, 13, 15);
  for (k = 0; k < stride; k += 128) {
    const __m512i a = _mm512_loadu_si512(natural + k);
    const __m512i b = _mm512_loadu_si512(natural + k + 64);
    const __m512i four_a = _mm512_dpbusd_epi32(_mm512_setzero_si512(), ones, a);
    const __m512i four_b = _mm512_dpbusd_epi32(_mm512_setzero_si512(), ones, b);
    total = _mm512_add_epi32(total, _mm512_add_epi32(four_a, four_b));
    if (chunk == 1) continue;
    const auto eights = [](__m512i four) {
      return _mm512_cvtepi64_epi32(_mm512_add_epi32(four, _mm512_srli_epi64(four, 32)));
    };
    __m512i eight = _mm512_inserti64x4(_mm512_castsi256_si512(eights(four_a)), eights(four_b), 1);
    eight = _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32(eight, 3));
    _mm512_storeu_si512(target.offsets8 + k / 8, eight);
    __m512i wide = _mm512_add_epi32(eight, _mm512_shuffle_epi32(eight, _MM_PERM_CDAB));
    wide = _mm512_add_epi32(wide, _mm512_shuffle_epi32(wide, _MM_PERM_BADC));
    wide = _mm512_permutexvar_epi32(
        _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), wide);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(target.offsets32 + k / 32),
                     _mm512_castsi512_si128(wide));
    if (chunk == 8) {
      _mm512_storeu_si512(target.values + k, _mm512_shuffle_epi8(a, quarters));
      _mm512_storeu_si512(target.values + k + 64, _mm512_shuffle_epi8(b, quarters));
    } else {
      const __m512i sa = _mm512_shuffle_epi8(a, halves);
      const __m512i sb = _mm512_shuffle_epi8(b, halves);
      _mm512_storeu_si512(target.values + k, _mm512_permutex2var_epi64(sa, even, sb));
      _mm512_storeu_si512(target.values + k + 64, _mm512_permutex2var_epi64(sa, odd, sb));
    }
  }
  row.sum = _mm512_reduce_add_epi32(total);
  return row;
}

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
      _mm_prefetch(reinterpret_cast<const char*>(scales[r] + kAhead / 8), _MM_HINT_T0);
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
      _mm_prefetch(reinterpret_cast<const char*>(at + kAhead), _MM_HINT_T0);
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

// columns(): the weights of 32 outputs as [inputs / 4][32][4] unsigned bytes (or [inputs][32]
// floats), so that sums of products stay in the lane of their output; then the scales of each group
// as [groups][32] floats.
int64_t weight_room(const Layer& layer) {
  const int64_t bytes = layer.format == Format::kFloat32 ? 4 : 1;
  return padded(layer.inputs) * kBlock * bytes;
}
int64_t column_scratch(const Layer& layer) {
  return weight_room(layer) + layer.groups() * kBlock * 4;
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

void expand_scales(const Layer& layer, int64_t begin, int64_t end, float* to) {
  const int64_t groups = layer.groups();
  for (int64_t n = 0; n < kBlock; ++n) {
    const uint8_t* const row = layer.scales + std::min(begin + n, end - 1) * groups * 2;
    for (int64_t g = 0; g < groups; ++g) to[g * kBlock + n] = load_bfloat16(row, g);
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
#pragma GCC unroll 8
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

// One scale for each output.
template <int kM>
void tile_whole(const Tile& tile, int64_t i) {
  const Activations& in = *tile.in;
  const Layer& layer = *tile.layer;
  __m512i left[kM];
  __m512i right[kM];
  const int32_t offset = layer.format == Format::kInt8 ? 128 : 8;
#pragma GCC unroll 8
  for (int m = 0; m < kM; ++m)
    left[m] = right[m] = _mm512_set1_epi32(-offset * in.scales[i + m].sum);
  add_products<kM, 2>(tile.weights, in.values + i * in.stride, in.stride, tile.quads, left, right);
  const uint8_t* const scales = layer.scales + tile.begin * 4;
  const __m512 s0 = _mm512_maskz_loadu_ps(lanes(tile.count), scales);
  const __m512 s1 =
      _mm512_maskz_loadu_ps(lanes(tile.count - 16), scales + std::min<int64_t>(16, tile.count) * 4);
  const __m512i left_integers = _mm512_cvtps_epi32(tile.left_sums());
  const __m512i right_integers = _mm512_cvtps_epi32(tile.right_sums());
#pragma GCC unroll 8
  for (int m = 0; m < kM; ++m) {
    const RowScale& row = in.scales[i + m];
    const __m512i zero = _mm512_set1_epi32(row.zero_point);
    const __m512 factor = _mm512_set1_ps(row.scale);
    const auto scaled = [&](__m512i sum, __m512i weights) {
      return _mm512_mul_ps(
          _mm512_cvtepi32_ps(_mm512_sub_epi32(sum, _mm512_mullo_epi32(zero, weights))), factor);
    };
    store_half(tile, i + m, 0, scaled(left[m], left_integers), s0);
    store_half(tile, i + m, 1, scaled(right[m], right_integers), s1);
  }
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
  } else if (tile.layer->format == Format::kFloat32) {
    tile_floats<kM>(tile, i);
  } else {
    tile_whole<kM>(tile, i);
  }
}

void columns(const Layer& layer, const Activations& in, const float* sums, int64_t begin,
             int64_t end, uint8_t* scratch, float* out) {
  float* const scales = reinterpret_cast<float*>(scratch + weight_room(layer));
  const int64_t quads = expand(layer, begin, end, scratch);
  if (layer.format == Format::kInt4Groups) expand_scales(layer, begin, end, scales);
  const Tile tile = {&layer, &in, sums, scratch, scales, quads, begin, end - begin, out};
  // Tiles of nearly the same height, each of which prefetches its share of the next block.
  int64_t tiles = (in.rows + kTileRows - 1) / kTileRows;
  const uint8_t* ahead = layer.row(end);
  const uint8_t* const last = layer.row(std::min(end + kBlock, layer.outputs));
  for (int64_t i = 0; i < in.rows; --tiles) {
    const uint8_t* const stop = ahead + (last - ahead + tiles - 1) / tiles;
    for (; ahead < stop; ahead += 64)
      _mm_prefetch(reinterpret_cast<const char*>(ahead), _MM_HINT_T1);
    const int64_t height = (in.rows - i + tiles - 1) / tiles;
    switch (height) {
      case 6:
        some_tile<6>(tile, i);
        break;
      case 5:
        some_tile<5>(tile, i);
        break;
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

const Kernels kAvx512VnniKernels = {
    "avx512vnni", 128, 8, 4, kBlock, quantise, rows, columns, column_scratch, &kAvx512Loops};

}  // namespace emm::linear
