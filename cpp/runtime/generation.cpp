#include "runtime/generation.h"

#include <algorithm>
#include <utility>

namespace emm {

Generation::Generation(std::shared_ptr<Session> session, GenerationOptions options)
    : session_(std::move(session)), options_(std::move(options)), sampler_(options_.sampling) {}

bool Generation::should_stop() {
  if (finish_reason_ != FinishReason::kNone) return true;
  if (session_->is_cancelled())
    finish_reason_ = FinishReason::kCancelled;
  else if (options_.max_new_tokens >= 0 && num_tokens_ >= options_.max_new_tokens)
    finish_reason_ = FinishReason::kLength;
  else if (session_->is_full())
    finish_reason_ = FinishReason::kCapacity;
  return finish_reason_ != FinishReason::kNone;
}

std::optional<int32_t> Generation::next() {
  if (should_stop()) return std::nullopt;
  const int32_t token = session_->step(sampler_);
  ++num_tokens_;
  if (std::find(options_.eos_ids.begin(), options_.eos_ids.end(), token) !=
      options_.eos_ids.end()) {
    finish_reason_ = FinishReason::kStop;
    return std::nullopt;
  }
  return token;
}

}  // namespace emm
