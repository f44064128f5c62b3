#include "runtime/generation.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/clock.h"
#include "base/error.h"

namespace emm {
namespace {

bool contains(const std::vector<int64_t>& ids, int32_t token) {
  return std::find(ids.begin(), ids.end(), token) != ids.end();
}

SamplingOptions with_end_tokens(const GenerationOptions& options) {
  SamplingOptions sampling = options.sampling;
  for (const auto* ids : {&options.eos_ids, &options.stop_token_ids}) {
    for (const int64_t id : *ids) sampling.end_tokens.push_back(static_cast<int32_t>(id));
  }
  return sampling;
}

// Another method may have been chosen since the draft model was loaded.
bool takes_guesses(const Contract& contract) {
  return contract.all_logits && contract.max_chunk >= 2 && !contract.cache.is_recurrent;
}

// Whether tokens come out the same however many are read in a call. Else how many these are must
// not follow from the clock.
bool has_same_rows(const Contract& contract) {
  return contract.has_own_attention && contract.step_name.empty() &&
         contract.position_style != PositionStyle::kNone;
}

void expect_guesses(const Contract& contract) {
  const std::string name = "prompt_lookup_num_tokens: ";
  const std::string& decoder = contract.decoder_name;
  if (!contract.all_logits || contract.max_chunk < 2) {
    throw Error(ErrorCode::kInput,
                name + "expected a model that gives logits for each token of a call, " + decoder +
                    " gives those of the last one");
  }
  if (contract.cache.is_recurrent) {
    throw Error(ErrorCode::kInput, name + "expected a model that can go back in its context, " +
                                       decoder + " has a recurrent state");
  }
}

}  // namespace

Generation::Generation(std::shared_ptr<Session> session, GenerationOptions options,
                       std::shared_ptr<Drafter> drafter)
    : session_(std::move(session)),
      options_(std::move(options)),
      sampler_(with_end_tokens(options_)),
      drafter_(std::move(drafter)) {
  const int64_t vocab_size = session_->contract().vocab_size;
  for (const int64_t id : options_.stop_token_ids) check_token_id("stop_token_ids", id, vocab_size);
  sampler_.prepare(vocab_size);
  if (!has_same_rows(session_->contract())) session_->costs()->fix();
  if (options_.num_lookup_tokens > 0) {
    expect_guesses(session_->contract());
    // What is guessed has been there before, which that option forbids.
    if (options_.sampling.no_repeat_ngram_size == 0)
      lookup_.emplace(options_.num_lookup_tokens, session_->costs());
  }
  if (options_.num_assistant_tokens < 1 || !takes_guesses(session_->contract())) drafter_ = nullptr;
  if (drafter_)
    drafter_->begin(*session_, with_end_tokens(options_), options_.num_assistant_tokens,
                    !has_same_rows(session_->contract()));
  before_ = session_->timings();
}

int64_t Generation::deadline_ns() const {
  return options_.timeout_ns < 0 ? kNever : session_->timings().start_ns + options_.timeout_ns;
}

bool Generation::should_stop() {
  if (finish_reason_ != FinishReason::kNone) return true;
  const int64_t num_positions =
      session_->position() + static_cast<int64_t>(session_->pending_tokens().size());
  if (session_->is_cancelled())
    finish_reason_ = FinishReason::kCancelled;
  else if (options_.timeout_ns >= 0 && now_ns() >= deadline_ns())
    finish_reason_ = FinishReason::kTimeout;
  else if (options_.max_new_tokens >= 0 &&
           static_cast<int64_t>(records_.size()) >= options_.max_new_tokens)
    finish_reason_ = FinishReason::kLength;
  else if (options_.max_positions >= 0 && num_positions >= options_.max_positions)
    finish_reason_ = FinishReason::kLength;
  else if (session_->is_full())
    finish_reason_ = FinishReason::kCapacity;
  if (finish_reason_ != FinishReason::kNone) session_->step_aside();
  return finish_reason_ != FinishReason::kNone;
}

void Generation::record(int32_t token) {
  TokenRecord record{token, now_ns() - session_->timings().start_ns, 0.0f, {}};
  if (has_logprobs()) {
    record.logprob = sampler_.logprob();
    record.top_logprobs = sampler_.top_logprobs();
  }
  records_.push_back(std::move(record));
}

// What the last call of the model took, and what its guesses came to.
void Generation::settle() {
  const RequestTimings& timings = session_->timings();
  const int64_t num_drafted = timings.num_drafted_tokens - before_.num_drafted_tokens;
  const int64_t num_right = timings.num_accepted_tokens - before_.num_accepted_tokens;
  CallCosts& costs = *session_->costs();
  const bool is_one_call = timings.num_decode_steps - before_.num_decode_steps == 1 &&
                           timings.num_shared_steps == before_.num_shared_steps;
  if (is_alone_ && is_one_call) costs.add(num_drafted + 1, timings.decode_ns - before_.decode_ns);
  const double lost = costs.of(num_drafted + 1) - 1.0 - static_cast<double>(num_right);
  const double spent = drafter_ ? drafter_->settle(num_right + 1, has_drafted_ ? lost : 0.0) : 0.0;
  may_lose_ += kMayLosePerToken * static_cast<double>(num_right + 1) - lost - spent;
  before_ = timings;
  if (num_drafted == 0) return;
  if (has_drafted_)
    drafter_->learn(num_right, num_right < num_drafted);
  else if (lookup_)
    lookup_->learn(num_right, num_right < num_drafted);
}

// Guesses for the next call of the model, if it is called for the next token.
std::vector<int64_t> Generation::guess(const CheckGuesses& check) {
  if ((!lookup_ && !drafter_) || !session_->needs_call()) return {};
  settle();
  std::vector<int64_t> text = session_->history();
  const std::vector<int64_t> pending = session_->pending_tokens();
  is_alone_ = pending.size() == 1;
  if (!is_alone_) return {};  // these are read in one call, which takes no guesses
  text.push_back(pending[0]);
  std::vector<int64_t> guesses = guess_after(text);
  if (check && !guesses.empty()) guesses.resize(std::min(guesses.size(), check(guesses)));
  return guesses;
}

std::vector<int64_t> Generation::guess_after(const std::vector<int64_t>& text) {
  // This step gives one token, and nothing is to come after the last.
  int64_t most = std::numeric_limits<int64_t>::max();
  if (options_.max_new_tokens >= 0)
    most = options_.max_new_tokens - static_cast<int64_t>(records_.size()) - 1;
  if (options_.max_positions >= 0)
    most = std::min(most, options_.max_positions - static_cast<int64_t>(text.size()) - 1);
  has_drafted_ = false;
  if (lookup_) {
    std::vector<int64_t> guesses =
        lookup_->guess(text, std::min(most, options_.num_lookup_tokens), may_lose_);
    if (!guesses.empty() || !drafter_) return guesses;
  }
  has_drafted_ = true;
  const ScopedTimer timer(draft_ns_);
  std::vector<int64_t> guesses = drafter_->guess(text, most, sampler_, deadline_ns(), may_lose_);
  // It may have more tokens than this model.
  const auto beyond = std::find_if(guesses.begin(), guesses.end(),
                                   [&](int64_t token) { return token >= vocab_size(); });
  guesses.erase(beyond, guesses.end());
  return guesses;
}

std::optional<int32_t> Generation::next(const SampleHooks& hooks, const CheckGuesses& check) {
  if (should_stop()) return std::nullopt;
  const std::optional<int32_t> token = session_->step(sampler_, hooks, guess(check), deadline_ns());
  if (token) return take(*token);
  should_stop();
  return std::nullopt;
}

std::optional<int32_t> Generation::next_forced(int32_t token) {
  check_token_id("token", token, vocab_size());
  if (has_logprobs()) throw Error(ErrorCode::kInput, "logprobs: a forced token has none");
  if (should_stop()) return std::nullopt;
  if (!session_->append(token, deadline_ns())) {
    should_stop();
    return std::nullopt;
  }
  sampler_.pass();
  return take(token);
}

// A token of the answer, and whether it ends it.
std::optional<int32_t> Generation::take(int32_t token) {
  record(token);
  const bool is_stop = contains(options_.stop_token_ids, token);
  if (is_stop || contains(options_.eos_ids, token)) {
    finish_reason_ = FinishReason::kStop;
    stop_token_ = token;
    session_->step_aside();
    if (!is_stop || !options_.include_stop) return std::nullopt;
  }
  return token;
}

}  // namespace emm
