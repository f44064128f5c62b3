// Several sessions that share a model take a step together, in one call of it.
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

}  // namespace

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
