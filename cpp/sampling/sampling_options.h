// How the next token is chosen. Plain numbers; Python validates their ranges before they get here,
// Sampler::prepare() the token ids, which depend on the model.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "sampling/timestamp_rules.h"

namespace emm {

struct SamplingOptions {
  float temperature = 0.0f;         // 0 = the likeliest token
  int32_t top_k = 0;                // 0 = off
  float top_p = 1.0f;               // 1 = off
  float min_p = 0.0f;               // 0 = off
  float typical_p = 1.0f;           // 1 = off
  float repetition_penalty = 1.0f;  // 1 = off; of tokens anywhere in the context
  float frequency_penalty = 0.0f;   // per occurrence in the answer
  float presence_penalty = 0.0f;    // once for a token of the answer
  int32_t no_repeat_ngram_size = 0;
  std::vector<std::pair<int32_t, float>> logit_bias;  // token id, added to its logit
  std::vector<int32_t> suppress_tokens;
  std::vector<int32_t> forced_tokens;  // what the answer begins with
  std::vector<int32_t> end_tokens;     // not before min_new_tokens
  int64_t min_new_tokens = 0;
  int32_t num_logprobs =
      -1;  // likeliest tokens to report at each step; -1 = not even the chosen one
  uint64_t seed = 0;
  std::vector<int32_t> begin_suppress_tokens;  // what the answer does not begin with
  TimestampRules timestamps;
  bool has_edited_logprobs = false;  // logprobs without what was forbidden
};

}  // namespace emm
