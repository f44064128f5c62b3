// Chooses the next token from one row of logits. Owns its random state and its scratch memory,
// which is allocated with the first row: later ones allocate nothing.
#pragma once

#include <cstdint>
#include <vector>

#include "base/tensor_view.h"
#include "sampling/logit_filters.h"
#include "sampling/sampling_options.h"

namespace emm {

class Sampler {
 public:
  explicit Sampler(const SamplingOptions& options) : options_(options), state_(options.seed) {}

  // logits: (vocab_size), float32, float16, bfloat16 or uint16. Returns a token id. Throws
  // Error(kExecution) when no logit is above -inf or the largest is +inf or NaN.
  int32_t sample(const TensorView& logits);

 private:
  double next_uniform();  // [0, 1)

  SamplingOptions options_;
  uint64_t state_;
  std::vector<float> row_;             // (vocab_size) when the logits are not float32
  std::vector<Candidate> candidates_;  // what the filters left
};

// The row as float32: the view's own memory where it already is, otherwise `scratch`.
const float* as_float32(const TensorView& logits, std::vector<float>& scratch);

// Index of the largest value, the first of equals; NaN never wins. -1 when nothing is above -inf.
int32_t argmax(const float* values, int64_t size);

}  // namespace emm
