// Sessions whose steps go into the call of the one that has the turn.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "testing/fake_session.h"

using namespace emm;
using namespace emm::testing;

namespace {

Contract sharing(int64_t max_batch_tokens = 8) {
  Contract contract = fake_contract();
  contract.max_batch_tokens = max_batch_tokens;
  return contract;
}

int64_t digest(const std::vector<int64_t>& cache) {
  int64_t sum = 7;
  for (const int64_t id : cache) sum = (sum * 31 + id + 3) % 1009;
  return sum % 10 + 2;
}

void prefill(Session& session, std::vector<int64_t> ids) {
  session.begin_prefill({TokenInput{std::move(ids)}});
  while (session.step_prefill()) {
    if (session.is_cancelled()) session.begin_request();  // or it would never end
  }
}

std::vector<int32_t> generate(const std::shared_ptr<Session>& session, int64_t count,
                              FinishReason* reason = nullptr) {
  GenerationOptions options;
  options.max_new_tokens = count;
  Generation generation(session, options);
  std::vector<int32_t> tokens;
  while (const auto token = generation.next()) tokens.push_back(*token);
  if (reason != nullptr) *reason = generation.finish_reason();
  return tokens;
}

std::vector<int32_t> alone(const std::vector<int64_t>& ids, int64_t count) {
  FakeSession f(fake_contract(), digest);
  prefill(*f.session, ids);
  return f.generate(count);
}

std::vector<int32_t> behind_first(const std::vector<int32_t>& tokens) {
  return {tokens.begin() + 1, tokens.end()};
}

// Sessions that have one token of their answer and wait for a turn that somebody else has.
struct Waiting {
  explicit Waiting(int count, int64_t max_batch_tokens = 8)
      : f(sharing(max_batch_tokens), digest), turns(*f.fake->turns()) {
    for (int i = 0; i < count; ++i) {
      sessions.push_back(i == 0 ? f.session : std::shared_ptr<Session>(f.session->another()));
      prefill(*sessions.back(), prompt(i));
      CHECK(generate(sessions.back(), 1) == alone(prompt(i), 1));
    }
    answers.resize(sessions.size());
    reasons.resize(sessions.size());
    turns.enter(0);
  }
  ~Waiting() { join(); }

  static std::vector<int64_t> prompt(int i) {
    return std::vector<int64_t>(static_cast<size_t>(1 + i % 4), 3 + i);
  }

  void start(size_t i, int64_t count) {
    threads.emplace_back(
        [this, i, count] { answers[i] = generate(sessions[i], count, &reasons[i]); });
    while (turns.num_waiting() < threads.size()) std::this_thread::yield();
  }
  void join() {
    for (std::thread& thread : threads) {
      if (thread.joinable()) thread.join();
    }
  }
  // The tokens of an answer behind its first.
  std::vector<int32_t> wanted(size_t i, int64_t count) const {
    return behind_first(alone(prompt(static_cast<int>(i)), count + 1));
  }

  FakeSession f;
  TurnQueue& turns;
  std::vector<std::shared_ptr<Session>> sessions;
  std::vector<std::thread> threads;
  std::vector<std::vector<int32_t>> answers;
  std::vector<FinishReason> reasons;
};

}  // namespace

TEST_CASE("the steps of all that wait go into one call, and each has its own token") {
  Waiting w(4);
  for (size_t i = 0; i < 4; ++i) w.start(i, 1);
  w.turns.leave();
  w.join();
  CHECK(w.f.fake->batch_sizes() == std::vector<int64_t>{4});
  for (size_t i = 0; i < 4; ++i) {
    CHECK(w.answers[i] == w.wanted(i, 1));
    CHECK(w.sessions[i]->timings().num_shared_steps == 1);
    CHECK(w.sessions[i]->position() ==
          static_cast<int64_t>(Waiting::prompt(static_cast<int>(i)).size()) + 1);
  }
}

TEST_CASE("a call takes as many along as find room, in the order of the turns") {
  Waiting w(5, 3);
  w.sessions[4]->set_priority(-1);
  for (size_t i = 0; i < 5; ++i) w.start(i, 1);
  w.turns.leave();
  w.join();
  CHECK(w.f.fake->batch_sizes() == std::vector<int64_t>{3, 2});
  for (size_t i = 0; i < 5; ++i) CHECK(w.answers[i] == w.wanted(i, 1));
}

TEST_CASE("who is cancelled or out of time while waiting is not taken along") {
  Waiting w(4);
  for (size_t i = 0; i < 3; ++i) w.start(i, 1);
  w.threads.emplace_back([&] {
    GenerationOptions options;
    options.timeout_ns = 1'000'000;
    w.sessions[3]->begin_request();
    Generation generation(w.sessions[3], options);
    CHECK(generation.next() == std::nullopt);
    CHECK(generation.finish_reason() == FinishReason::kTimeout);
  });
  w.threads[3].join();
  w.sessions[1]->cancel();
  w.threads[1].join();
  w.turns.leave();
  w.join();
  CHECK(w.reasons[1] == FinishReason::kCancelled);
  CHECK(w.f.fake->batch_sizes() == std::vector<int64_t>{2});
  for (const size_t i : {0, 2}) CHECK(w.answers[i] == w.wanted(i, 1));
  // And goes on later as if nothing had been.
  for (const size_t i : {1, 3}) {
    w.sessions[i]->begin_request();
    CHECK(generate(w.sessions[i], 3) == w.wanted(i, 3));
  }
}

TEST_CASE("a shared call that fails is made again by each, and only the one at fault fails") {
  Waiting w(3);
  w.f.fake->spoils_batches = true;
  w.f.fake->fail_at_call = static_cast<int64_t>(w.f.fake->call_sizes.size());
  std::atomic<int> num_failed{0};
  w.threads.emplace_back([&] {
    try {
      generate(w.sessions[0], 1);
    } catch (const Error& error) {
      num_failed += error.code() == ErrorCode::kExecution;
    }
  });
  while (w.turns.num_waiting() < 1) std::this_thread::yield();
  for (size_t i = 1; i < 3; ++i) w.start(i, 1);
  w.turns.leave();
  w.join();
  CHECK(num_failed == 1);
  for (size_t i = 1; i < 3; ++i) CHECK(w.answers[i] == w.wanted(i, 1));
  w.f.fake->spoils_batches = false;
  CHECK(generate(w.sessions[0], 2) == w.wanted(0, 2));
  CHECK(w.f.fake->batch_sizes()[0] == 3);
}

TEST_CASE("a part of a prompt takes waiting steps along") {
  Waiting w(3);
  std::thread reading;
  w.sessions[0]->set_priority(-1);
  w.start(1, 1);
  w.start(2, 1);
  reading = std::thread([&] { prefill(*w.sessions[0], {5, 6, 7}); });
  while (w.turns.num_waiting() < 3) std::this_thread::yield();
  w.turns.leave();
  w.join();
  reading.join();
  CHECK(w.f.fake->batch_sizes() == std::vector<int64_t>{3});
  for (size_t i = 1; i < 3; ++i) CHECK(w.answers[i] == w.wanted(i, 1));
  FakeSession g(fake_contract(), digest);
  prefill(*g.session, Waiting::prompt(0));
  g.generate(1);
  g.prefill({TokenInput{{5, 6, 7}}});
  CHECK(generate(w.sessions[0], 3) == g.generate(3));
}

TEST_CASE("sessions of a model that takes one at a time have a call each") {
  Waiting w(3, 1);
  for (size_t i = 0; i < 3; ++i) w.start(i, 2);
  w.turns.leave();
  w.join();
  CHECK(w.f.fake->batch_sizes().empty());
  for (size_t i = 0; i < 3; ++i) {
    CHECK(w.answers[i] == w.wanted(i, 2));
    CHECK(w.sessions[i]->timings().num_shared_steps == 0);
  }
}

TEST_CASE("who has the turn waits for those of the last call, but not for those who stay away") {
  TurnQueue turns;
  const auto errand = [](const std::shared_ptr<Regular>& regular) {
    Errand made;
    made.regular = regular;
    made.size = 1;
    return made;
  };
  const auto one = std::make_shared<Regular>();
  const auto other = std::make_shared<Regular>();
  const auto accepts = [](const Errand&) { return true; };
  Errand first = errand(one);
  CHECK(turns.enter(0, {}, &first) == TurnQueue::Outcome::kTurn);
  Errand second = errand(other);
  std::thread comes([&] { CHECK(turns.enter(0, {}, &second) == TurnQueue::Outcome::kDone); });
  while (turns.num_waiting() < 1) std::this_thread::yield();
  {
    TurnQueue::Company company(turns);
    turns.take_along(company, &first, 7, accepts);
    REQUIRE(company.errands().size() == 1);
    company.finish(20'000'000);
  }
  turns.leave();
  comes.join();

  // It did not come in time: the next calls do not wait for it.
  CHECK(turns.enter(0, {}, &first) == TurnQueue::Outcome::kTurn);
  turns.gather(first, 7, {});
  CHECK(other->num_missed == 1);
  CHECK(other->num_unawaited > 0);
  turns.gather(first, 7, {});
  CHECK(other->num_missed == 1);
  // One that is there is in time.
  second = errand(other);
  comes = std::thread([&] { CHECK(turns.enter(0, {}, &second) == TurnQueue::Outcome::kDone); });
  while (turns.num_waiting() < 1) std::this_thread::yield();
  turns.gather(first, 7, {});
  CHECK(other->num_missed == 0);
  CHECK(other->num_unawaited == 0);
  {
    TurnQueue::Company company(turns);
    turns.take_along(company, &first, 7, accepts);
    company.finish(int64_t{1} << 50);
  }
  comes.join();
  // One that says that it does not come is not waited for.
  turns.dismiss(other);
  turns.gather(first, 7, {});
  CHECK(other->num_missed == 0);
  turns.leave();
}

TEST_CASE("sessions in threads of their own, some cancelled, failing or reset, answer as alone") {
  FakeSession f(sharing(6), digest);
  constexpr int kNumThreads = 6;
  std::vector<std::shared_ptr<Session>> sessions;
  for (int i = 0; i < kNumThreads; ++i) sessions.push_back(f.session->another());
  std::atomic<int> num_wrong{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < kNumThreads; ++i) {
    threads.emplace_back([&, i] {
      const std::shared_ptr<Session>& session = sessions[static_cast<size_t>(i)];
      const std::shared_ptr<Session>& next = sessions[static_cast<size_t>((i + 1) % kNumThreads)];
      for (int round = 0; round < 20; ++round) {
        const std::vector<int64_t> ids(static_cast<size_t>(1 + (i + round) % 5), 3 + round % 7);
        const std::vector<int32_t> wanted = alone(ids, 12);
        session->reset();
        session->begin_request();
        prefill(*session, ids);
        const std::shared_ptr<Session> fork = session->fork();
        FinishReason reason = FinishReason::kNone;
        const std::vector<int32_t> tokens = generate(session, 12, &reason);
        const bool is_prefix = tokens.size() <= wanted.size() &&
                               std::equal(tokens.begin(), tokens.end(), wanted.begin());
        num_wrong += !is_prefix || (reason != FinishReason::kCancelled && tokens != wanted);
        if (round % 4 == i % 4) next->cancel();
        if (round % 3 == 0) num_wrong += generate(fork, 8) != alone(ids, 8);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(num_wrong == 0);
}
