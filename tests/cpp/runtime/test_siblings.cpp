// Several conversations over one model.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "testing/fake_session.h"

using namespace emm;
using namespace emm::testing;

namespace {

void prefill(Session& session, std::vector<int64_t> ids) {
  session.begin_prefill({TokenInput{std::move(ids)}});
  while (session.step_prefill()) {
  }
}

std::vector<int32_t> generate(const std::shared_ptr<Session>& session, int64_t max_new_tokens) {
  GenerationOptions options;
  options.max_new_tokens = max_new_tokens;
  Generation generation(session, options);
  std::vector<int32_t> tokens;
  while (const auto token = generation.next()) tokens.push_back(*token);
  return tokens;
}

// The next token is a digest of all that was read, so that a mistaken cache shows.
int64_t digest(const std::vector<int64_t>& cache) {
  int64_t sum = 7;
  for (const int64_t id : cache) sum = (sum * 31 + id + 3) % 1009;
  return sum % 10 + 2;
}

// What a session of its own answers.
std::vector<int32_t> alone(const Contract& contract, const std::vector<int64_t>& ids,
                           int64_t max_new_tokens) {
  FakeSession f(contract, digest);
  prefill(*f.session, ids);
  return f.generate(max_new_tokens);
}

std::vector<Contract> kinds() {
  std::vector<Contract> contracts(3, fake_contract());
  contracts[1].cache.ring_rows = 8;
  contracts[1].cache.ring_window = 4;
  contracts[2].cache.is_recurrent = true;
  for (Contract& contract : contracts) contract.max_chunk = 4;
  return contracts;
}

}  // namespace

TEST_CASE("sessions over one model each have a position, a history and answers of their own") {
  for (const Contract& contract : kinds()) {
    FakeSession f(contract, digest);
    const std::shared_ptr<Session> other = f.session->another();
    prefill(*f.session, {3, 4, 5});
    prefill(*other, {6, 7});
    CHECK(f.session->history() == std::vector<int64_t>{3, 4, 5});
    CHECK(other->history() == std::vector<int64_t>{6, 7});
    const auto first = f.generate(2);
    CHECK(generate(other, 3) == alone(contract, {6, 7}, 3));
    CHECK(first == alone(contract, {3, 4, 5}, 2));
  }
}

TEST_CASE("a session goes on from another, which stays as it is") {
  for (const Contract& contract : kinds()) {
    FakeSession f(contract, digest);
    prefill(*f.session, {3, 4, 5});
    const std::shared_ptr<Session> other = f.session->another();
    prefill(*other, {9, 9, 9, 9});
    other->go_on_from(*f.session);
    CHECK(other->history() == std::vector<int64_t>{3, 4, 5});
    CHECK(generate(other, 2) == alone(contract, {3, 4, 5}, 2));
    const auto pending = other->pending_tokens();
    REQUIRE(pending.size() == 1);

    // All of it, what is pending included; or as far as a position, where nothing is.
    const std::shared_ptr<Session> third = f.session->another();
    third->go_on_from(*other);
    CHECK(third->pending_tokens() == pending);
    third->go_on_from(*other, other->position());
    CHECK(third->pending_tokens().empty());
    CHECK(third->can_generate());
    CHECK(generate(third, 1)[0] == pending[0]);
    CHECK(f.generate(3) == alone(contract, {3, 4, 5}, 3));
  }
}

TEST_CASE("a session goes on from a lower position where the other's state goes back there") {
  for (const Contract& contract : kinds()) {
    FakeSession f(contract, digest);
    prefill(*f.session, {3, 4, 5, 6, 7, 8});
    prefill(*f.session, {3, 4, 5, 6});  // a ring of eight has overwritten its first two by now
    const std::shared_ptr<Session> other = f.session->another();
    prefill(*other, {2, 2});
    const bool is_flat = contract.cache.ring_rows == 0 && !contract.cache.is_recurrent;
    const int64_t lowest = is_flat ? 1 : contract.cache.is_recurrent ? 10 : 6;
    for (const int64_t position : {int64_t{-1}, int64_t{0}, lowest - 1, int64_t{11}})
      CHECK_THROWS_AS(other->go_on_from(*f.session, position), Error);
    CHECK(other->history() == std::vector<int64_t>{2, 2});
    CHECK_THROWS_AS(other->go_on_from(*other), Error);

    const std::vector<int64_t> all{3, 4, 5, 6, 7, 8, 3, 4, 5, 6};
    for (int64_t position = lowest; position < 10; ++position) {
      other->go_on_from(*f.session, position);
      CHECK(other->position() == position);
      CHECK_FALSE(other->can_generate());
      const auto end = all.begin() + static_cast<std::ptrdiff_t>(position);
      std::vector<int64_t> read(all.begin(), end);
      CHECK(other->history() == read);
      prefill(*other, {9, 3});
      read.insert(read.end(), {9, 3});
      CHECK(generate(other, 3) == alone(contract, read, 3));
    }
    CHECK(f.generate(3) == alone(contract, all, 3));
  }
}

TEST_CASE("sessions go on from each other in many threads without waiting for ever") {
  FakeSession f(kinds()[0], digest);
  prefill(*f.session, {3, 4, 5});
  const std::shared_ptr<Session> one = f.session->fork();
  const std::shared_ptr<Session> other = f.session->fork();
  std::atomic<int> num_done{0};
  const auto work = [&](Session& to, Session& from) {
    for (int i = 0; i < 200; ++i) {
      try {
        to.go_on_from(from, 2);
        ++num_done;
        to.go_on_from(*f.session);
      } catch (const Error& error) {
        if (error.code() != ErrorCode::kBusy && error.code() != ErrorCode::kInput) throw;
      }
    }
  };
  std::thread thread(work, std::ref(*one), std::ref(*other));
  work(*other, *one);
  thread.join();
  CHECK(num_done > 0);
}

TEST_CASE("a fork goes on from where the session stands, and neither sees the other") {
  for (const Contract& contract : kinds()) {
    FakeSession f(contract, digest);
    prefill(*f.session, {3, 4, 5});
    const std::shared_ptr<Session> fork = f.session->fork();
    CHECK(fork->position() == 3);
    CHECK(fork->history() == f.session->history());
    prefill(*fork, {8});
    CHECK(f.session->position() == 3);
    CHECK(f.generate(3) == alone(contract, {3, 4, 5}, 3));
    CHECK(generate(fork, 3) == alone(contract, {3, 4, 5, 8}, 3));
  }
}

TEST_CASE("a fork has the logits and the pending tokens of its session") {
  FakeSession f(fake_contract(), digest);
  prefill(*f.session, {3, 4, 5});
  const std::shared_ptr<Session> before = f.session->fork();
  const auto answer = f.generate(2);
  const std::shared_ptr<Session> after = f.session->fork();
  CHECK(after->pending_tokens() == f.session->pending_tokens());
  CHECK(generate(before, 2) == answer);
  CHECK(generate(after, 2) == f.generate(2));
}

TEST_CASE("logits that were lent before there was a sibling outlast the sibling's calls") {
  FakeSession f(fake_contract(), digest);
  prefill(*f.session, {3, 4, 5});
  const std::shared_ptr<Session> other = f.session->another();
  prefill(*other, {6});
  CHECK(f.generate(1) == alone(fake_contract(), {3, 4, 5}, 1));
}

TEST_CASE("a session is not forked while it reads a prompt, nor after its state was lost") {
  FakeSession f;
  f.session->begin_prefill({TokenInput{{3, 4, 5}}});
  CHECK_THROWS_AS(f.session->fork(), Error);
  CHECK_THROWS_AS(f.session->another(), Error);
  f.session->abort_prefill();
  CHECK(f.session->fork()->position() == 0);
}

TEST_CASE("a limit on chunks holds for tokens and for the rows of images") {
  FakeSession f;
  f.session->limit_chunks(3);
  f.prefill({TokenInput{{3, 4, 5, 6}}, image()});
  CHECK(f.fake->call_sizes == std::vector<int64_t>{2, 2, 2, 2});
  f.session->another()->limit_chunks(100);
  f.session->reset();
  f.session->limit_chunks(100);
  f.prefill({TokenInput{{3, 4, 5, 6}}});
  CHECK(f.fake->call_sizes.back() == 4);
}

TEST_CASE("cancelling one session ends its wait for a turn at once and touches no other") {
  FakeSession f(fake_contract(), digest);
  const std::shared_ptr<Session> other = f.session->another();
  prefill(*f.session, {3, 4, 5});
  prefill(*other, {3, 4, 5});
  f.generate(1);
  const auto calls_before = f.fake->call_sizes.size();
  TurnQueue& turns = *f.fake->turns();
  turns.enter(0);
  FinishReason reason = FinishReason::kNone;
  std::vector<int32_t> tokens;
  std::thread waiting([&] { tokens = f.generate(5, &reason); });
  while (turns.num_waiting() == 0) std::this_thread::yield();
  f.session->cancel();
  waiting.join();
  turns.leave();
  CHECK(reason == FinishReason::kCancelled);
  CHECK(tokens.empty());
  CHECK(f.fake->call_sizes.size() == calls_before);
  CHECK(generate(other, 3) == alone(fake_contract(), {3, 4, 5}, 3));
  f.session->begin_request();
  const std::vector<int32_t> whole = alone(fake_contract(), {3, 4, 5}, 4);
  CHECK(f.generate(3) == std::vector<int32_t>(whole.begin() + 1, whole.end()));
}

TEST_CASE("a wait for a turn ends with the request's time, and the conversation goes on later") {
  for (const Contract& contract : kinds()) {
    FakeSession f(contract, digest);
    const std::shared_ptr<Session> other = f.session->another();
    prefill(*f.session, {3, 4, 5});
    prefill(*other, {3, 4, 5});
    const std::vector<int32_t> first = f.generate(1);
    TurnQueue& turns = *f.fake->turns();
    turns.enter(0);
    GenerationOptions options;
    options.timeout_ns = 10'000'000;
    f.session->begin_request();
    Generation generation(f.session, options);
    CHECK(generation.next() == std::nullopt);
    CHECK(generation.finish_reason() == FinishReason::kTimeout);
    // A prompt as well, which leaves no trace.
    f.session->begin_prefill({TokenInput{{6, 7, 8, 9, 3, 4, 5}}});
    CHECK(f.session->step_prefill(now_ns() + 10'000'000));
    f.session->abort_prefill();
    CHECK(f.session->position() == 3);
    CHECK(turns.num_waiting() == 0);
    turns.leave();
    const std::vector<int32_t> whole = alone(contract, {3, 4, 5}, 4);
    CHECK(f.generate(3) == std::vector<int32_t>(whole.begin() + 1, whole.end()));
    CHECK(generate(other, 4) == whole);
  }
}

TEST_CASE("a prompt that is given up half read is taken back before others have their turns") {
  for (const Contract& contract : kinds()) {
    FakeSession f(contract, digest);
    prefill(*f.session, {3, 4, 5});
    f.session->begin_prefill({TokenInput{{6, 7, 8, 9, 3, 4, 5}}});
    CHECK(f.session->step_prefill());
    CHECK(f.session->position() == 7);
    TurnQueue& turns = *f.fake->turns();
    turns.enter(0);
    std::atomic<bool> has_come{false};
    std::thread waiting([&] {
      const Turn turn(&turns, 0);
      has_come = true;
      CHECK(f.session->position() == 3);
    });
    while (turns.num_waiting() < 1) std::this_thread::yield();
    CHECK(f.session->step_prefill(now_ns() + 10'000'000));
    std::thread ending([&] { f.session->abort_prefill(); });
    // Where the state has to be brought back, that waits for the call under way.
    const bool needs_turn = contract.cache.is_recurrent || contract.cache.ring_rows > 0;
    while (needs_turn && turns.num_waiting() < 2) std::this_thread::yield();
    if (!needs_turn) ending.join();
    CHECK_FALSE(has_come);
    turns.leave();
    if (needs_turn) ending.join();
    waiting.join();
    CHECK(f.generate(4) == alone(contract, {3, 4, 5}, 4));
  }
}

TEST_CASE("a fork that shares the cancellation of its session ends with it") {
  FakeSession f(fake_contract(), digest);
  prefill(*f.session, {3, 4, 5});
  const std::shared_ptr<Session> fork = f.session->fork();
  const std::shared_ptr<Session> independent = f.session->fork();
  fork->share_cancel(*f.session);
  generate(fork, 1);
  TurnQueue& turns = *f.fake->turns();
  turns.enter(0);
  std::vector<int32_t> tokens;
  std::thread waiting([&] { tokens = generate(fork, 5); });
  while (turns.num_waiting() == 0) std::this_thread::yield();
  f.session->cancel();
  waiting.join();
  turns.leave();
  CHECK(tokens.empty());
  CHECK(fork->is_cancelled());
  CHECK(generate(independent, 3) == alone(fake_contract(), {3, 4, 5}, 3));
}

TEST_CASE("sessions in threads of their own answer as they do alone") {
  for (const Contract& contract : kinds()) {
    FakeSession f(contract, digest);
    constexpr int kNumThreads = 6;
    std::vector<std::shared_ptr<Session>> sessions;
    for (int i = 0; i < kNumThreads; ++i) sessions.push_back(f.session->another());
    std::atomic<int> num_wrong{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < kNumThreads; ++i) {
      threads.emplace_back([&, i] {
        const std::vector<int64_t> ids = {3 + i, 4, 5 + i, 6, 7};
        const std::vector<int32_t> wanted = alone(contract, ids, 12);
        for (int round = 0; round < 20; ++round) {
          const auto& session = sessions[static_cast<size_t>(i)];
          session->reset();
          prefill(*session, ids);
          const std::shared_ptr<Session> fork = session->fork();
          num_wrong += generate(session, 12) != wanted;
          num_wrong += generate(fork, 12) != wanted;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(num_wrong == 0);
  }
}
