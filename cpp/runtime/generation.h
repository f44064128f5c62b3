// One answer, token by token: asks the session for a step and decides when the answer is complete.
// Shares the session with whoever began the request; that caller sees to it that one request runs
// at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "runtime/session.h"
#include "sampling/sampling_options.h"

namespace emm {

enum class FinishReason {
  kNone,       // not finished
  kStop,       // the model said so: an end token
  kLength,     // max_new_tokens
  kCapacity,   // the context is full
  kCancelled,  // cancel() was called
};

struct GenerationOptions {
  SamplingOptions sampling;
  int64_t max_new_tokens = -1;   // -1: until the context is full
  std::vector<int64_t> eos_ids;  // end tokens; empty to ignore them
};

class Generation {
 public:
  Generation(std::shared_ptr<Session> session, GenerationOptions options);

  // The next token, or nothing when the answer is complete; an end token is not returned.
  std::optional<int32_t> next();
  FinishReason finish_reason() const { return finish_reason_; }

 private:
  bool should_stop();

  std::shared_ptr<Session> session_;
  GenerationOptions options_;
  Sampler sampler_;
  int64_t num_tokens_ = 0;
  FinishReason finish_reason_ = FinishReason::kNone;
};

}  // namespace emm
