// What the kernels for AVX-512 F, BW, VL, DQ and VNNI have in common. Weights are the unsigned
// operand of vpdpbusd, with an offset (8 or 128) that the rows' sums take off again; the
// activations are the signed one.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>

#include "linear/kernels.h"

namespace emm::linear::avx512vnni {

constexpr int64_t kBlock = 32;  // outputs of columns()
constexpr int64_t kWide = 8;    // outputs of one_row() that are computed together
// Weights come from memory once in a decode step, through small pages, at whose ends the processor
// stops looking ahead.
constexpr int64_t kAhead = 8192;

inline __mmask16 lanes(int64_t count) {
  return static_cast<__mmask16>(count >= 16 ? 0xFFFF : (1u << std::max<int64_t>(count, 0)) - 1);
}
inline __mmask64 bytes_mask(int64_t count) {
  return count >= 64 ? ~__mmask64{0} : (__mmask64{1} << std::max<int64_t>(count, 0)) - 1;
}

RowScale quantise(const float* x, int64_t inputs, int64_t chunk, int8_t* plain,
                  const RowTarget& target);
void rows(const Layer& layer, const Activations& in, const float* sums, int64_t begin, int64_t end,
          float* out);
// Row i of rows() for groups of 32, inputs that are a multiple of 64 and outputs of kWide.
void one_row(const Layer& layer, const Activations& in, int64_t i, const float* sums, int64_t begin,
             int64_t end, float* out);
void columns(const Layer& layer, const Activations& in, const float* sums, int64_t begin,
             int64_t end, uint8_t* scratch, float* out);
int64_t column_scratch(const Layer& layer);

}  // namespace emm::linear::avx512vnni
