// One answer, token by token: asks the session for a step and decides when the answer is complete.
// Shares the session with whoever began the request; that caller sees to it that one request runs
// at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "runtime/drafter.h"
#include "runtime/prompt_lookup.h"
#include "runtime/session.h"
#include "sampling/sampler.h"

namespace emm {

enum class FinishReason {
  kNone,       // not finished
  kStop,       // the model said so: an end token or a stop token
  kLength,     // max_new_tokens or max_positions
  kCapacity,   // the context is full
  kTimeout,    // timeout_ns
  kCancelled,  // cancel() was called
};

struct GenerationOptions {
  SamplingOptions sampling;
  int64_t max_new_tokens = -1;          // -1: until the context is full
  int64_t max_positions = -1;           // of prompt and answer together; -1: the whole context
  int64_t timeout_ns = -1;              // since the request began; -1: none
  std::vector<int64_t> eos_ids;         // end tokens; empty to ignore them
  std::vector<int64_t> stop_token_ids;  // end the answer as well
  bool include_stop = false;            // return such a token
  int64_t num_lookup_tokens = 0;        // guessed at a time, see PromptLookup; 0: none
  int64_t num_assistant_tokens = 0;     // guessed at a time, see Drafter; 0: none
};

// A token of the answer, whether it was returned or ended it.
struct TokenRecord {
  int32_t token = 0;
  int64_t time_ns = 0;                  // since the request began
  float logprob = 0.0f;                 // both only where num_logprobs >= 0, see Sampler
  std::vector<Candidate> top_logprobs;  // falling
};

// How many of the guessed tokens may come, one after the other.
using CheckGuesses = std::function<size_t(const std::vector<int64_t>& guesses)>;

class Generation {
 public:
  // Throws Error(kInput) when an option names a token the model does not have.
  // `drafter` is used by nobody else meanwhile; null where there is none.
  Generation(std::shared_ptr<Session> session, GenerationOptions options,
             std::shared_ptr<Drafter> drafter = nullptr);
  ~Generation() { session_->step_aside(); }
  Generation(const Generation&) = delete;
  Generation& operator=(const Generation&) = delete;

  // The next token, or nothing when the answer is complete; an end token is not returned. If a hook
  // throws, the step has not been taken and can be tried again.
  std::optional<int32_t> next(const SampleHooks& hooks = {}, const CheckGuesses& check = {});
  // The same where the caller knows that the next token can only be `token`: the model is not asked
  // and reads it later, see Session::append(). Throws Error(kInput) where logprobs are wanted.
  std::optional<int32_t> next_forced(int32_t token);

  FinishReason finish_reason() const { return finish_reason_; }
  // The token that ended the answer.
  std::optional<int32_t> stop_token() const { return stop_token_; }
  const std::vector<TokenRecord>& records() const { return records_; }
  // Time spent on guesses of the draft model.
  int64_t draft_ns() const { return draft_ns_; }
  // A call of the model for one token, as it was measured; 0 where it was not.
  int64_t step_ns() const { return static_cast<int64_t>(session_->costs()->one_ns()); }
  int64_t vocab_size() const { return session_->contract().vocab_size; }
  bool has_logprobs() const { return options_.sampling.num_logprobs >= 0; }

 private:
  bool should_stop();
  int64_t deadline_ns() const;  // of now_ns()
  std::optional<int32_t> take(int32_t token);
  void record(int32_t token);
  std::vector<int64_t> guess(const CheckGuesses& check);
  void settle();
  std::vector<int64_t> guess_after(const std::vector<int64_t>& text);

  std::shared_ptr<Session> session_;
  GenerationOptions options_;
  Sampler sampler_;
  std::optional<PromptLookup> lookup_;
  std::shared_ptr<Drafter> drafter_;
  bool has_drafted_ = false;  // the last guess was the draft model's
  int64_t draft_ns_ = 0;
  RequestTimings before_;  // as they were before the last call of the model
  bool is_alone_ = false;  // it read one token and guesses, and no other session's
  double may_lose_ = 0;    // by wrong guesses, in calls of one token
  std::vector<TokenRecord> records_;
  FinishReason finish_reason_ = FinishReason::kNone;
  std::optional<int32_t> stop_token_;
};

}  // namespace emm
