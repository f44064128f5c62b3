// Several sessions that share a model take a step together, in one call of it: because they wait
// for it at the same time, or because one caller has them all.
#include <algorithm>
#include <string>

#include "base/clock.h"
#include "base/error.h"
#include "runtime/session.h"

namespace emm {
namespace {

void check_members(const std::vector<Session*>& sessions, const std::vector<Sampler*>& samplers) {
  if (sessions.empty() || sessions.size() != samplers.size()) {
    throw Error(ErrorCode::kInput,
                "batch: expected a sampler for each of 1 or more sessions, got " +
                    std::to_string(samplers.size()) + " for " + std::to_string(sessions.size()));
  }
  std::vector<Session*> sorted = sessions;
  std::sort(sorted.begin(), sorted.end());
  if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end())
    throw Error(ErrorCode::kInput, "batch: expected each session once");
}

// More of them are a prompt, which is not to make the step of another slow.
constexpr int64_t kMostTokensOfStep = 16;

}  // namespace

struct Session::Step final : Errand {
  Step(BatchPart given, std::shared_ptr<Regular> comes) : part(given) {
    regular = std::move(comes);
    size = part.num_tokens;
  }
  BatchPart part;
  TensorView logits;  // once it is done, as is the next one
  int64_t call_ns = 0;
  bool is_shared = false;
};

void Session::step_aside() {
  if (TurnQueue* const turns = executor_->turns()) turns->dismiss(regular_);
}

bool Session::read_in_company(int64_t deadline_ns) {
  const auto num_tokens = static_cast<int64_t>(pending_tokens_.size());
  Step step({executor_.get(), pending_tokens_.data(), num_tokens, position_.used()}, regular_);
  const bool is_sharing =
      !reads_alone_ && num_tokens <= kMostTokensOfStep && executor_->goes_with(*executor_);
  const Patience patience{is_cancelled_.get(), deadline_ns};
  {
    const Turn turn(executor_->turns(), priority_, patience, is_sharing ? &step : nullptr);
    if (turn.has_come()) {
      expect_intact();
      if (is_sharing) {
        executor_->turns()->gather(step, contract().max_batch_tokens - num_tokens, patience);
        if (patience.has_ended()) return false;
      }
      const ScopedTimer timer(timings_.decode_ns);
      keep_logits(decode_ids(pending_tokens_.data(), num_tokens, 0, is_sharing ? &step : nullptr));
    } else if (step.state != Errand::State::kDone) {
      return false;
    }
  }
  if (step.state == Errand::State::kDone) {
    ahead_.clear();
    position_.begin_write(num_tokens);
    advance(pending_tokens_.data(), num_tokens);
    keep_logits(step.logits);
    timings_.decode_ns += step.call_ns;
  }
  timings_.num_shared_steps += step.is_shared ? 1 : 0;
  return true;
}

TensorView Session::decode_in_company(const BatchPart& part, Step* own) {
  const auto decode = [&] {
    return executor_->decode_tokens(part.ids, part.num_tokens, part.position);
  };
  if (reads_alone_ || !executor_->goes_with(*executor_)) return decode();
  TurnQueue::Company company(*executor_->turns());
  const auto accepts = [&](const Errand& errand) {
    return executor_->goes_with(*static_cast<const Step&>(errand).part.conversation);
  };
  executor_->turns()->take_along(company, own, contract().max_batch_tokens - part.num_tokens,
                                 accepts);
  int64_t call_ns = 0;
  if (company.errands().empty()) {
    TensorView logits;
    {
      const ScopedTimer timer(call_ns);
      logits = decode();
    }
    company.finish(own == nullptr ? 0 : call_ns);
    return logits;
  }
  std::vector<BatchPart> parts{part};
  for (const Errand* errand : company.errands())
    parts.push_back(static_cast<const Step*>(errand)->part);
  std::vector<TensorView> logits;
  try {
    const ScopedTimer timer(call_ns);
    logits = executor_->decode_batch(parts);
  } catch (...) {
    // Whose fault it is shows where each calls alone.
    company.bring_back();
    return decode();
  }
  for (size_t i = 0; i < company.errands().size(); ++i) {
    auto& step = *static_cast<Step*>(company.errands()[i]);
    step.logits = logits[i + 1];
    step.call_ns = call_ns;
    step.is_shared = true;
  }
  if (own != nullptr) own->is_shared = true;
  company.finish(own == nullptr ? 0 : call_ns);
  return logits[0];
}

std::vector<int32_t> Session::step_together(const std::vector<Session*>& sessions,
                                            const std::vector<Sampler*>& samplers) {
  check_members(sessions, samplers);
  std::vector<std::unique_lock<std::mutex>> locks;
  for (Session* session : sessions) {
    locks.push_back(session->enter());
    session->expect_idle();
    session->expect_prompt();
    session->expect_intact();
  }
  std::vector<Session*> readers;
  std::vector<BatchPart> parts;
  for (Session* session : sessions) {
    session->take_guessed();
    const std::vector<int64_t>& pending = session->pending_tokens_;
    const auto num_tokens = static_cast<int64_t>(pending.size());
    if (num_tokens == 0) continue;
    const KvPosition& position = session->position_;
    check_capacity(num_tokens, position.available(), session->contract().capacity);
    readers.push_back(session);
    parts.push_back({session->executor_.get(), pending.data(), num_tokens, position.used()});
  }
  if (!parts.empty()) {
    const Turn turn = readers[0]->take_turn();
    for (Session* session : readers) {
      session->ahead_.clear();
      session->position_.begin_write(static_cast<int64_t>(session->pending_tokens_.size()));
    }
    int64_t elapsed = 0;
    std::vector<TensorView> logits;
    {
      const ScopedTimer timer(elapsed);
      logits = readers[0]->executor_->decode_batch(parts);
    }
    for (size_t i = 0; i < readers.size(); ++i) {
      Session& session = *readers[i];
      session.advance(parts[i].ids, parts[i].num_tokens);
      session.keep_logits(logits[i]);
      session.clear_pending();
      session.timings_.decode_ns += elapsed;
      ++session.timings_.num_decode_steps;
    }
  }
  std::vector<int32_t> tokens;
  for (size_t i = 0; i < sessions.size(); ++i) {
    Session& session = *sessions[i];
    const ScopedTimer timer(session.timings_.sample_ns);
    tokens.push_back(samplers[i]->sample(static_cast<const float*>(session.logits_.data),
                                         session.logits_.size(), session.history_));
    session.add_pending(tokens.back());
  }
  return tokens;
}

}  // namespace emm
