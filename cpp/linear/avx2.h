// What the kernels for AVX2 have in common. 4-bit weights are the unsigned operand of vpmaddubsw,
// with an offset of 8 that the rows' sums take off again: no sum of 32 products leaves 16 bits.
// 8-bit weights would, so they are multiplied as 16-bit integers.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "linear/kernels.h"

namespace emm::linear::avx2 {

constexpr int64_t kBlock = 16;  // outputs of columns()
constexpr int64_t kChunk = 64;  // inputs of a vector of 4-bit weights

inline __m256i lanes(int64_t count) {
  const __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(std::clamp<int64_t>(count, 0, 8))),
                            index);
}
inline __m256 load_some(const void* floats, int64_t count) {
  return _mm256_maskload_ps(static_cast<const float*>(floats), lanes(count));
}
// Up to 32 bytes, zeros behind them.
inline __m256i load_bytes(const uint8_t* from, int64_t count) {
  if (count >= 32) return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  alignas(32) uint8_t copy[32] = {};
  if (count > 0) std::memcpy(copy, from, static_cast<size_t>(count));
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(copy));
}
inline __m256i load_whole(const void* from) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}
inline void store_whole(void* to, __m256i value) {
  _mm256_storeu_si256(static_cast<__m256i*>(to), value);
}
// Gcc makes all products of an unrolled loop first, and has no registers for them.
inline void keep_order(__m256i& sum) { asm("" : "+x"(sum)); }
inline float sum_of(__m256 v) {
  __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  half = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}
inline int32_t sum_of(__m128i v) {
  v = _mm_add_epi32(v, _mm_shuffle_epi32(v, 0x4E));
  return _mm_cvtsi128_si32(_mm_add_epi32(v, _mm_shuffle_epi32(v, 0xB1)));
}
inline int32_t sum_of(__m256i v) {
  return sum_of(_mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1)));
}

RowScale quantise(const float* x, int64_t inputs, int64_t chunk, int8_t* plain,
                  const RowTarget& target);
void rows(const Layer& layer, const Activations& in, const float* sums, int64_t begin, int64_t end,
          float* out);
void columns(const Layer& layer, const Activations& in, const float* sums, int64_t begin,
             int64_t end, uint8_t* scratch, float* out);
int64_t column_scratch(const Layer& layer);

}  // namespace emm::linear::avx2
