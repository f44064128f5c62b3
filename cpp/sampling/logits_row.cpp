#include "sampling/logits_row.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <string>

#include "base/error.h"

namespace emm {
namespace {

constexpr int64_t kLanes = 32;  // so many that gcc makes vectors of them instead of unrolling

template <typename Convert>
void convert_row(const TensorView& logits, float* out, Convert convert) {
  const auto* values = static_cast<const uint16_t*>(logits.data);
  const int64_t size = logits.size();
  for (int64_t i = 0; i < size; ++i) out[i] = convert(values[i]);
}

inline float larger(float a, float b) { return b > a ? b : a; }  // a where b is NaN

float largest_of(const float* values, int64_t size) {
  float lanes[kLanes];
  std::fill_n(lanes, kLanes, -INFINITY);
  const int64_t even = size - size % kLanes;
  for (int64_t i = 0; i < even; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane)
      lanes[lane] = larger(lanes[lane], values[i + lane]);
  }
  for (int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (int64_t lane = 0; lane < half; ++lane)
      lanes[lane] = larger(lanes[lane], lanes[lane + half]);
  }
  float largest = lanes[0];
  for (int64_t i = even; i < size; ++i) largest = larger(largest, values[i]);
  return largest;
}

// 2^x for x <= 0. Adding 1.5 * 2^23 rounds x to an integer that then stands in the low bits of the
// sum. What is left lies in [-0.5, 0.5], where the polynomial, a Chebyshev interpolation, is within
// 3e-9 of 2^x; the integer goes into the exponent.
inline float exp2_of_nonpositive(float x) {
  const float clamped = x > -126.0f ? x : -126.0f;  // NaN too
  const float shifted = clamped + 12582912.0f;
  const float fraction = clamped - (shifted - 12582912.0f);
  float power = 1.54614447e-4f;
  power = power * fraction + 1.34004282e-3f;
  power = power * fraction + 9.61805668e-3f;
  power = power * fraction + 5.55032723e-2f;
  power = power * fraction + 2.40226509e-1f;
  power = power * fraction + 6.93147207e-1f;
  power = power * fraction + 1.0f;
  int32_t exponent, bits;
  std::memcpy(&exponent, &shifted, sizeof exponent);
  std::memcpy(&bits, &power, sizeof bits);
  bits += static_cast<int32_t>(static_cast<uint32_t>(exponent) << 23);
  float result;
  std::memcpy(&result, &bits, sizeof result);
  return x > -126.0f ? result : 0.0f;
}

// log2(e) / temperature, kept finite so that 0 times it is 0.
inline float scale_of(float temperature) { return std::min(1.44269504f / temperature, FLT_MAX); }

// The sum of value_of(i); blocks are short enough for float sums in lanes.
template <typename Value>
double sum_of(int64_t size, Value value_of) {
  float lanes[kLanes] = {};
  const int64_t even = size - size % kLanes;
  for (int64_t i = 0; i < even; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += value_of(i + lane);
  }
  double sum = 0.0;
  for (const float lane : lanes) sum += static_cast<double>(lane);
  for (int64_t i = even; i < size; ++i) sum += static_cast<double>(value_of(i));
  return sum;
}

double sum_above(float bound, const float* keys, const float* weights, int64_t size) {
  return sum_of(size, [=](int64_t i) {
    const float weight = weights[i];  // read in any case, for a loop without branches
    return keys[i] > bound ? weight : 0.0f;
  });
}

}  // namespace

const float* as_float32(const TensorView& logits, std::vector<float>& scratch) {
  if (logits.dtype == DType::kFloat32) return static_cast<const float*>(logits.data);
  scratch.resize(static_cast<size_t>(logits.size()));
  switch (logits.dtype) {
    case DType::kFloat16:
      convert_row(logits, scratch.data(), float16_to_float);
      break;
    case DType::kBFloat16:
      convert_row(logits, scratch.data(), bfloat16_to_float);
      break;
    case DType::kUInt16:  // quantised logits: order is all that is known of them
      convert_row(logits, scratch.data(), [](uint16_t value) { return static_cast<float>(value); });
      break;
    default:
      throw Error(ErrorCode::kContract,
                  std::string("logits: expected float32, float16, bfloat16 or uint16, got ") +
                      dtype_name(logits.dtype));
  }
  return scratch.data();
}

int32_t argmax(const float* row, int64_t size) {
  float largest = -INFINITY;
  int64_t best = -1;  // where the block that holds it begins
  for (int64_t begin = 0; begin < size; begin += kRowBlock) {
    const float in_block = largest_of(row + begin, std::min(kRowBlock, size - begin));
    if (in_block > largest) {
      largest = in_block;
      best = begin;
    }
  }
  if (best < 0) return -1;
  while (best + 1 < size && row[best] != largest) ++best;
  return static_cast<int32_t>(best);
}

float block_maxima(const float* row, int64_t size, float* maxima) {
  float largest = -INFINITY;
  for (int64_t begin = 0; begin < size; begin += kRowBlock) {
    const float in_block = largest_of(row + begin, std::min(kRowBlock, size - begin));
    *maxima++ = in_block;
    largest = larger(largest, in_block);
  }
  return largest;
}

float softmax_weight(float value, float largest, float temperature) {
  return exp2_of_nonpositive((value - largest) * scale_of(temperature));
}

double softmax_weights(const float* row, int64_t size, float largest, float temperature,
                       float* weights, double* sums) {
  const float scale = scale_of(temperature);
  double total = 0.0;
  for (int64_t begin = 0; begin < size; begin += kRowBlock) {
    const int64_t count = std::min(kRowBlock, size - begin);
    for (int64_t i = begin; i < begin + count; ++i)
      weights[i] = exp2_of_nonpositive((row[i] - largest) * scale);
    *sums = sum_above(0.0f, weights + begin, weights + begin, count);
    total += *sums++;
  }
  return total;
}

double log_sum_exp(const float* row, int64_t size) {
  float largest = -INFINITY;
  for (int64_t begin = 0; begin < size; begin += kRowBlock)
    largest = larger(largest, largest_of(row + begin, std::min(kRowBlock, size - begin)));
  if (!std::isfinite(largest)) return static_cast<double>(largest);
  double total = 0.0;
  float weights[kRowBlock];
  for (int64_t begin = 0; begin < size; begin += kRowBlock) {
    double sum = 0.0;
    total += softmax_weights(row + begin, std::min(kRowBlock, size - begin), largest, 1.0f, weights,
                             &sum);
  }
  return static_cast<double>(largest) + std::log(total);
}

void typicality(const float* row, int64_t size, float largest, float temperature,
                const float* weights, double total, float* keys) {
  const float scale = scale_of(temperature) / scale_of(1.0f);
  double expected = 0.0;
  for (int64_t begin = 0; begin < size; begin += kRowBlock) {
    expected += sum_of(std::min(kRowBlock, size - begin), [=](int64_t i) {
      const float weight = weights[begin + i];
      return weight > 0.0f ? weight * ((largest - row[begin + i]) * scale) : 0.0f;
    });
  }
  const auto middle = static_cast<float>(expected / total);
  for (int64_t i = 0; i < size; ++i) {
    const float distance = std::abs((largest - row[i]) * scale - middle);
    keys[i] = weights[i] > 0.0f ? -distance : -INFINITY;
  }
}

double sums_before(Rank rank, const float* keys, const float* weights, int64_t size, double* sums) {
  const float below = std::nextafter(rank.key, -INFINITY);
  double total = 0.0;
  for (int64_t begin = 0; begin < size; begin += kRowBlock) {
    const int64_t count = std::min(kRowBlock, size - begin);
    // Equal weights count up to the rank's index, which splits one block.
    const int64_t num_first = std::clamp<int64_t>(rank.index - begin, 0, count);
    const int64_t rest = begin + num_first;
    *sums = sum_above(below, keys + begin, weights + begin, num_first) +
            sum_above(rank.key, keys + rest, weights + rest, count - num_first);
    total += *sums++;
  }
  return total;
}

}  // namespace emm
