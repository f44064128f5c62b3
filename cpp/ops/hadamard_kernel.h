// The Walsh-Hadamard transform of 2^k floats: the steps within a vector by shuffles, the wider ones
// two at a time, so that the row is passed over half as often.
#pragma once

#include "ops/attention_vec.h"

namespace emm::ops {
namespace {

// One butterfly of lanes that differ in one bit of their index: lane i becomes v[i] + v[i ^ bit]
// where the bit is clear, v[i ^ bit] - v[i] where it is set. `sign` is 1 and -1 accordingly.
inline vf lane_step(vf v, vf swapped, int bit) {
  vf sign;
  for (int i = 0; i < kLanes; ++i) {
    sign[i] = (i & bit) == 0 ? 1.0f : -1.0f;
  }
  return v * sign + swapped;
}

inline vf lane_steps(vf v) {
#if defined(__AVX512F__)
  v = lane_step(
      v, __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14), 1);
  v = lane_step(
      v, __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13), 2);
  v = lane_step(
      v, __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11), 4);
  return lane_step(
      v, __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7), 8);
#elif defined(__AVX2__)
  v = lane_step(v, __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6), 1);
  v = lane_step(v, __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5), 2);
  return lane_step(v, __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3), 4);
#else
  v = lane_step(v, __builtin_shufflevector(v, v, 1, 0, 3, 2), 1);
  return lane_step(v, __builtin_shufflevector(v, v, 2, 3, 0, 1), 2);
#endif
}

inline void hadamard_small(float* x, int64_t size, float factor) {
  for (int64_t step = 1; step < size; step *= 2) {
    for (int64_t i = 0; i < size; ++i) {
      if ((i & step) == 0) {
        const float a = x[i];
        const float b = x[i + step];
        x[i] = a + b;
        x[i + step] = a - b;
      }
    }
  }
  for (int64_t i = 0; i < size; ++i) {
    x[i] *= factor;
  }
}

// In place, times factor.
void hadamard(float* x, int64_t size, float factor) {
  if (size < kLanes) {
    hadamard_small(x, size, factor);
    return;
  }
  for (int64_t i = 0; i < size; i += kLanes) {
    store(x + i, lane_steps(load(x + i) * factor));
  }
  int64_t step = kLanes;
  for (; 4 * step <= size; step *= 4) {
    for (int64_t block = 0; block < size; block += 4 * step) {
      for (int64_t i = block; i < block + step; i += kLanes) {
        const vf a = load(x + i);
        const vf b = load(x + i + step);
        const vf c = load(x + i + 2 * step);
        const vf d = load(x + i + 3 * step);
        store(x + i, (a + b) + (c + d));
        store(x + i + step, (a - b) + (c - d));
        store(x + i + 2 * step, (a + b) - (c + d));
        store(x + i + 3 * step, (a - b) - (c - d));
      }
    }
  }
  if (step < size) {
    for (int64_t i = 0; i < step; i += kLanes) {
      const vf a = load(x + i);
      const vf b = load(x + i + step);
      store(x + i, a + b);
      store(x + i + step, a - b);
    }
  }
}

}  // namespace
}  // namespace emm::ops
