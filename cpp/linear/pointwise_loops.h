// The loops of PointwiseLoops, for the compiler to vectorise with each file's options. No function
// here has a name that other files share.
#pragma once

#include <cstdint>
#include <cstring>

#include "linear/pointwise.h"

namespace emm::linear {
namespace {

struct Add {
  static float of(float a, float b) { return a + b; }
};
struct Subtract {
  static float of(float a, float b) { return a - b; }
};
struct Multiply {
  static float of(float a, float b) { return a * b; }
};

template <class Operation, bool kOneLeft, bool kOneRight>
void two(const float* a, const float* b, float* __restrict to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = Operation::of(a[kOneLeft ? 0 : i], b[kOneRight ? 0 : i]);
}

template <class Operation>
constexpr PointwiseLoops::Binary binary() {
  return {two<Operation, false, false>, two<Operation, true, false>, two<Operation, false, true>};
}

// 1 / (1 + exp(-x)) from exp(-|x|), which does not overflow: exp(r) by its series, r at most
// log(2) / 2, times a power of 2.
inline float sigmoid_of(float x) {
  constexpr float kLowest = -87.0f;             // below it the power would be no normal number
  constexpr float kToInteger = 12582912;        // 1.5 * 2^23: adding it rounds
  constexpr float kLog2High = 0.693145751953f;  // few enough bits for exact products
  constexpr float kLog2Low = 1.42860682030941723212e-6f;
  const float below = -__builtin_fabsf(x);
  const float a = below < kLowest ? kLowest : below;  // NaN stays
  const float shifted = a * 1.44269504089f + kToInteger;
  const float power = shifted - kToInteger;
  const float r = (a - power * kLog2High) - power * kLog2Low;
  float sum = 1.0f / 5040;
  sum = sum * r + 1.0f / 720;
  sum = sum * r + 1.0f / 120;
  sum = sum * r + 1.0f / 24;
  sum = sum * r + 1.0f / 6;
  sum = sum * r + 1.0f / 2;
  sum = sum * r + 1.0f;
  sum = sum * r + 1.0f;
  uint32_t bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits = (bits - 0x4B400000u + 127u) << 23;
  float factor;
  std::memcpy(&factor, &bits, sizeof factor);
  const float e = sum * factor;
  const float small = below < kLowest ? 0.0f : e / (1.0f + e);
  return x > 0 ? 1.0f - small : small;
}

void sigmoid(const float* a, float* __restrict to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = sigmoid_of(a[i]);
}

void reciprocal_root(const float* a, float* __restrict to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = 1.0f / __builtin_sqrtf(a[i]);
}

void rotate(const float* pairs, const float* cosine, const float* sine, float* __restrict to,
            int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const float a = pairs[2 * i];
    const float b = pairs[2 * i + 1];
    to[2 * i] = a * cosine[i] - b * sine[i];
    to[2 * i + 1] = a * sine[i] + b * cosine[i];
  }
}

}  // namespace
}  // namespace emm::linear

#define EMM_POINTWISE_LOOPS \
  {binary<Add>(), binary<Subtract>(), binary<Multiply>(), sigmoid, reciprocal_root, rotate}
