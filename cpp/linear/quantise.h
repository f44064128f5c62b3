// Rows of activations as 8-bit integers, with XNNPACK's rule for scale and zero point.
#pragma once

#include <cmath>
#include <cstdint>

namespace emm::linear {

struct RowScale {
  float scale = 0;         // of one step
  float inverse = 0;       // what the inputs are multiplied by
  int32_t zero_point = 0;  // the integer that stands for 0
  int32_t sum = 0;         // of the row's integers
};

// XNNPACK's xnn_f32_qd8_asymmetric_quantization_params, step by step: the comparisons decide what
// becomes of NaN and infinity, too.
inline RowScale choose_scale(float least, float most) {
  constexpr float kLowest = -128;
  constexpr float kHighest = 127;
  const float low = least < 0 ? least : 0.0f;
  const float high = most > 0 ? most : 0.0f;
  RowScale row;
  row.inverse = low == high ? 1.0f : (kHighest - kLowest) / (high - low);
  const float scaled_low = low * row.inverse;
  const float scaled_high = high * row.inverse;
  const float low_error = kLowest + scaled_low;
  const float high_error = kHighest + scaled_high;
  float zero = low_error + high_error > 0 ? kLowest - scaled_low : kHighest - scaled_high;
  zero = zero > kLowest ? zero : kLowest;
  zero = zero < kHighest ? zero : kHighest;
  row.zero_point = static_cast<int32_t>(std::nearbyint(zero));
  row.scale = 1.0f / row.inverse;
  return row;
}

// Rows of one input as kernels read them. With a chunk of c the integers of c inputs in a row lie
// in this order: the even ones, then the odd ones, as the halves of 4-bit weights do; 1 is the
// plain order.
struct Activations {
  int64_t rows = 0;
  int64_t inputs = 0;
  int64_t chunk = 1;
  int64_t stride = 0;                // of a row: padded(inputs); zeros behind the inputs
  const int8_t* values = nullptr;    // [rows][stride]
  const RowScale* scales = nullptr;  // [rows]
  // What the offset of 4-bit weights adds to the products of 8 and of 32 inputs in a row: -8 times
  // their sum. The first are for rows() and the second for columns(), where they may be two 16-bit
  // numbers: see the kernels.
  const int32_t* offsets8 = nullptr;   // [rows][stride / 8]
  const int32_t* offsets32 = nullptr;  // [rows][stride / 32]
  const float* floats = nullptr;       // [rows][inputs], for the format that takes floats
};

}  // namespace emm::linear
