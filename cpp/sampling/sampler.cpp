#include "sampling/sampler.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "base/error.h"

namespace emm {
namespace {

template <typename Convert>
void convert_row(const TensorView& logits, float* out, Convert convert) {
  const auto* values = static_cast<const uint16_t*>(logits.data);
  const int64_t size = logits.size();
  for (int64_t i = 0; i < size; ++i) out[i] = convert(values[i]);
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

// Block maxima first, in independent lanes that the compiler turns into vectors; then the first
// place of the largest. NaN compares false and is never chosen.
int32_t argmax(const float* values, int64_t size) {
  constexpr int64_t kLanes = 16;
  constexpr int64_t kBlock = 2048;
  float largest = -INFINITY;
  int64_t best_block = -1;
  for (int64_t start = 0; start < size; start += kBlock) {
    const int64_t end = std::min(start + kBlock, size);
    float lanes[kLanes];
    std::fill_n(lanes, kLanes, -INFINITY);
    int64_t i = start;
    for (; i + kLanes <= end; i += kLanes) {
      for (int64_t lane = 0; lane < kLanes; ++lane)
        lanes[lane] = values[i + lane] > lanes[lane] ? values[i + lane] : lanes[lane];
    }
    for (; i < end; ++i) lanes[0] = values[i] > lanes[0] ? values[i] : lanes[0];
    const float block_largest = *std::max_element(lanes, lanes + kLanes);
    if (block_largest > largest) {
      largest = block_largest;
      best_block = start;
    }
  }
  if (best_block < 0) return -1;
  return static_cast<int32_t>(std::find(values + best_block, values + size, largest) - values);
}

int32_t Sampler::sample(const TensorView& logits) {
  const int64_t vocab_size = logits.size();
  const float* values = as_float32(logits, row_);
  const int32_t best = argmax(values, vocab_size);
  if (best < 0 || !std::isfinite(values[best])) {
    throw Error(ErrorCode::kExecution,
                "sampling: expected at least one finite logit among " + std::to_string(vocab_size) +
                    (best < 0 ? ", got none" : ", got +inf at token " + std::to_string(best)));
  }
  if (options_.temperature == 0.0f) return best;

  candidates_.clear();
  candidates_.reserve(static_cast<size_t>(vocab_size));
  for (int64_t i = 0; i < vocab_size; ++i) {
    if (values[i] > -INFINITY) candidates_.push_back({values[i], static_cast<int32_t>(i)});
  }
  if (options_.top_k > 0) keep_top_k(candidates_, options_.top_k);
  softmax_weights(candidates_, options_.temperature);
  if (options_.top_p < 1.0f) keep_top_p(candidates_, options_.top_p);

  double total = 0.0;
  for (const Candidate& candidate : candidates_) total += static_cast<double>(candidate.value);
  double remaining = next_uniform() * total;
  for (const Candidate& candidate : candidates_) {
    remaining -= static_cast<double>(candidate.value);
    if (remaining < 0.0) return candidate.token;
  }
  return candidates_.back().token;
}

// SplitMix64 (Steele, Lea and Flood 2014): one addition and a mix, any seed is a good seed.
double Sampler::next_uniform() {
  state_ += 0x9E3779B97F4A7C15ull;
  uint64_t bits = state_;
  bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9ull;
  bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EBull;
  bits ^= bits >> 31;
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

}  // namespace emm
