// Sessions over decoders whose state cannot simply be gone back in: rings, recurrences, and both.
#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <vector>

#include "testing/fake_session.h"

using namespace emm;
using emm::testing::fake_contract;
using emm::testing::FakeSession;
using emm::testing::image;

namespace {

CacheLimits flat() { return {}; }
CacheLimits ring() { return {/*ring_rows=*/16, /*ring_window=*/8, false, false}; }
CacheLimits recurrent() { return {0, 0, /*is_recurrent=*/true, false}; }
CacheLimits both() { return {16, 8, true, false}; }
CacheLimits sink() { return {16, 4, false, /*is_unbounded=*/true}; }

FakeSession session_with(CacheLimits limits, int64_t capacity = 64) {
  Contract contract = fake_contract(capacity, /*max_chunk=*/limits.ring_rows > 0 ? 4 : 8);
  contract.cache = limits;
  return FakeSession(std::move(contract));
}

TokenInput tokens(int64_t count, int64_t first = 2) {
  TokenInput input;
  for (int64_t i = 0; i < count; ++i) input.ids.push_back((first + 3 * i) % 14 + 2);
  return input;
}

// The answer of a session that has read `ids` in one go.
std::vector<int32_t> fresh_answer(CacheLimits limits, std::vector<int64_t> ids, int64_t count) {
  FakeSession fresh = session_with(limits);
  fresh.prefill({TokenInput{std::move(ids)}});
  return fresh.generate(count);
}

// What the model has read and said so far.
std::vector<int64_t> everything(const FakeSession& f) {
  std::vector<int64_t> ids = f.session->history();
  for (const int64_t pending : f.session->pending_tokens()) ids.push_back(pending);
  return ids;
}

void expect_next_turn_as_if_nothing_had_happened(FakeSession& f, CacheLimits limits) {
  std::vector<int64_t> ids = everything(f);
  const TokenInput next = tokens(3, 5);
  ids.insert(ids.end(), next.ids.begin(), next.ids.end());
  f.prefill({next});
  CHECK(f.generate(6) == fresh_answer(limits, ids, 6));
}

}  // namespace

TEST_CASE(
    "a prompt aborted or failed at any chunk leaves no trace, whatever the state is made of") {
  for (const CacheLimits limits : {flat(), ring(), recurrent(), both()}) {
    for (const int64_t first_turn : {3, 14, 21}) {  // before, at and after a ring is full
      for (int64_t chunk = 0; chunk < 6; ++chunk) {
        for (const bool fails : {false, true}) {
          CAPTURE(limits.ring_rows);
          CAPTURE(limits.is_recurrent);
          CAPTURE(first_turn);
          CAPTURE(chunk);
          CAPTURE(fails);
          FakeSession f = session_with(limits);
          f.prefill({tokens(first_turn)});
          f.generate(4);
          const std::vector<int64_t> before = everything(f);
          f.session->begin_prefill({tokens(22, 4)});
          if (fails) {
            f.fake->fail_at_call = static_cast<int64_t>(f.fake->call_sizes.size()) + chunk;
            const auto read = [&] {
              while (f.session->step_prefill()) {
              }
            };
            if (chunk < 3) CHECK_THROWS_AS(read(), Error);
            f.fake->fail_at_call = -1;
            f.session->abort_prefill();
          } else {
            for (int64_t i = 0; i < chunk && f.session->step_prefill(); ++i) {
            }
            f.session->abort_prefill();
          }
          if (f.session->history().size() <= before.size()) CHECK(everything(f) == before);
          expect_next_turn_as_if_nothing_had_happened(f, limits);
        }
      }
    }
  }
}

TEST_CASE("an answer that is cancelled or fails between tokens goes on from there") {
  for (const CacheLimits limits : {flat(), ring(), recurrent(), both()}) {
    FakeSession f = session_with(limits);
    f.prefill({tokens(5)});
    f.fake->before_call = [&] {
      if (f.fake->call_sizes.size() == 6) f.session->cancel();
    };
    f.generate(40);
    CHECK(f.session->is_cancelled());
    f.session->begin_request();
    expect_next_turn_as_if_nothing_had_happened(f, limits);
  }
}

TEST_CASE("a step that fails in the middle is repeated in a ring and refused in a recurrence") {
  Sampler sampler{SamplingOptions{}};
  FakeSession in_ring = session_with(ring());
  in_ring.prefill({tokens(20)});
  in_ring.generate(2);
  in_ring.fake->fail_at_call = static_cast<int64_t>(in_ring.fake->call_sizes.size());
  CHECK_THROWS_AS(in_ring.session->step(sampler), Error);
  expect_next_turn_as_if_nothing_had_happened(in_ring, ring());

  FakeSession f = session_with(recurrent());
  f.prefill({tokens(5)});
  f.generate(2);
  const auto snapshot = f.session->save();
  const auto ids = everything(f);
  f.fake->fail_at_call = static_cast<int64_t>(f.fake->call_sizes.size());
  CHECK_THROWS_AS(f.session->step(sampler), Error);
  const char* lost =
      "the model's state was lost when a call failed: reset() or restore() a snapshot";
  CHECK_THROWS_WITH_AS(f.session->step(sampler), lost, Error);
  CHECK_THROWS_WITH_AS(f.session->begin_prefill({tokens(1)}), lost, Error);
  CHECK_THROWS_WITH_AS(f.session->save(), lost, Error);
  f.session->restore(*snapshot);
  CHECK(everything(f) == ids);
  expect_next_turn_as_if_nothing_had_happened(f, recurrent());
  f.fake->fail_at_call = static_cast<int64_t>(f.fake->call_sizes.size());
  CHECK_THROWS_AS(f.session->step(sampler), Error);
  f.session->reset();
  f.prefill({tokens(4)});
  CHECK(f.generate(3) == fresh_answer(recurrent(), tokens(4).ids, 3));
}

TEST_CASE("a rewind goes as far back as the state allows and says how far that is") {
  FakeSession full = session_with(ring());
  full.prefill({tokens(20)});
  CHECK_THROWS_WITH_AS(full.session->rewind(11),
                       "rewind: expected 0 or a position in 12..20 (the model keeps no other "
                       "state; save() does), got 11",
                       Error);
  CHECK(full.session->position() == 20);
  full.session->rewind(12);
  expect_next_turn_as_if_nothing_had_happened(full, ring());
  // Positions up to 20 have been written: going back once more counts from there.
  FakeSession again = session_with(ring());
  again.prefill({tokens(20)});
  again.session->rewind(14);
  again.session->rewind(12);
  CHECK_THROWS_AS(again.session->rewind(11), Error);
  expect_next_turn_as_if_nothing_had_happened(again, ring());

  FakeSession not_full = session_with(ring());
  not_full.prefill({tokens(16)});
  not_full.session->rewind(1);
  expect_next_turn_as_if_nothing_had_happened(not_full, ring());

  FakeSession f = session_with(recurrent());
  f.prefill({tokens(5)});
  CHECK_THROWS_WITH_AS(f.session->rewind(4),
                       "rewind: expected 0 or a position in 5..5 (the model keeps no other state; "
                       "save() does), got 4",
                       Error);
  f.session->rewind(5);
  f.session->rewind(0);
  f.prefill({tokens(4)});
  CHECK(f.generate(3) == fresh_answer(recurrent(), tokens(4).ids, 3));
}

TEST_CASE("the state is copied before a prompt only where going back would not do") {
  FakeSession f = session_with(flat());
  f.prefill({tokens(30), image()});
  CHECK(f.fake->num_saved == 0);
  FakeSession in_ring = session_with(ring());
  in_ring.prefill({tokens(16)});
  CHECK(in_ring.fake->num_saved == 0);
  in_ring.prefill({tokens(8)});
  CHECK(in_ring.fake->num_saved == 0);
  in_ring.prefill({tokens(9)});
  CHECK(in_ring.fake->num_saved == 1);
  FakeSession in_recurrence = session_with(recurrent());
  in_recurrence.prefill({tokens(1)});
  CHECK(in_recurrence.fake->num_saved == 1);
}

TEST_CASE("rings with an attention sink go on beyond the capacity, which limits one request") {
  FakeSession f = session_with(sink(), /*capacity=*/24);
  for (int turn = 0; turn < 5; ++turn) {
    f.prefill({tokens(20)});
    f.generate(3);
  }
  CHECK(f.session->position() > 100);
  CHECK_THROWS_AS(f.session->begin_prefill({tokens(25)}), Error);
}
