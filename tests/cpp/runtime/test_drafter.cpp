// Answers that another model drafts: the same tokens in fewer calls of the model that answers.
#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "runtime/drafter.h"
#include "testing/fake_session.h"

using namespace emm;
using emm::testing::fake_contract;
using emm::testing::FakeExecutor;
using emm::testing::FakeSession;
using emm::testing::without_repeats;

namespace {

using Ids = std::vector<int64_t>;

Contract contract_of(int64_t capacity, bool all_logits) {
  Contract contract = fake_contract(capacity, /*max_chunk=*/16);
  contract.decoder_name = "text_decoder";
  contract.all_logits = all_logits;
  contract.has_own_attention = true;  // how much is drafted may follow from other answers
  return contract;
}

// Wrong wherever the length is a multiple of six.
int64_t mostly_right(const Ids& cache) {
  return cache.size() % 6 == 0 ? (without_repeats(cache) - 1) % 14 + 2 : without_repeats(cache);
}

int64_t wrong(const Ids& cache) { return (without_repeats(cache) - 1) % 14 + 2; }

GenerationOptions options_with(int64_t max_new_tokens, int64_t num_assistant_tokens) {
  GenerationOptions options;
  options.max_new_tokens = max_new_tokens;
  options.eos_ids = {1};
  options.num_assistant_tokens = num_assistant_tokens;
  return options;
}

std::vector<int32_t> answer(FakeSession& f, GenerationOptions options,
                            std::shared_ptr<Drafter> drafter) {
  Generation generation(f.session, std::move(options), std::move(drafter));
  std::vector<int32_t> tokens;
  while (const auto token = generation.next()) tokens.push_back(*token);
  return tokens;
}

struct Pair {
  explicit Pair(FakeExecutor::Rule rule, double cost = 0.05, int64_t draft_capacity = 600,
                double calls = 64)
      : main(contract_of(1000, true), without_repeats),
        draft(contract_of(draft_capacity, false), std::move(rule)),
        credit(std::make_shared<DraftCredit>(calls)),
        drafter(std::make_shared<Drafter>(draft.session, cost, false, credit)) {}

  // What the last answers have lost, in calls of one token.
  double lost(double cost) const {
    double calls = -static_cast<double>(main.session->timings().num_accepted_tokens);
    for (const int64_t size : main.fake->call_sizes) calls += main.session->costs()->of(size) - 1.0;
    for (const int64_t size : draft.fake->call_sizes)
      calls += cost * (size <= 8 ? 1.0 : 0.2 * static_cast<double>(size));
    return calls;
  }

  FakeSession main;
  FakeSession draft;
  std::shared_ptr<DraftCredit> credit;
  std::shared_ptr<Drafter> drafter;
};

const RequestTimings& timings(const FakeSession& f) { return f.session->timings(); }

}  // namespace

TEST_CASE("whatever is drafted the answer is the same, over turns and rewinds") {
  for (const auto& rule : {without_repeats, mostly_right, wrong}) {
    for (const int64_t num_tokens : {1, 4, 40}) {
      FakeSession plain(contract_of(600, true), without_repeats);
      Pair pair(rule);
      for (int turn = 0; turn < 4; ++turn) {
        for (FakeSession* f : {&plain, &pair.main}) {
          if (turn == 3) f->session->rewind(20);
          f->session->begin_request();
          f->prefill({TokenInput{{3, 4, 5}}});
        }
        CHECK(answer(pair.main, options_with(30, num_tokens), pair.drafter) ==
              answer(plain, options_with(30, 0), nullptr));
        CHECK(pair.main.session->history() == plain.session->history());
        CHECK(pair.main.session->pending_tokens() == plain.session->pending_tokens());
        CHECK(timings(pair.main).num_decode_steps + timings(pair.main).num_accepted_tokens == 29);
      }
    }
  }
}

TEST_CASE("right guesses save calls, wrong ones are made more and more seldom") {
  Pair right(without_repeats);
  right.main.prefill({TokenInput{{3, 4, 5}}});
  answer(right.main, options_with(200, 8), right.drafter);
  CHECK(timings(right.main).num_drafted_tokens == timings(right.main).num_accepted_tokens);
  CHECK(timings(right.main).num_decode_steps <= 199 / 8 + 2);

  Pair mostly(mostly_right);
  mostly.main.prefill({TokenInput{{3, 4, 5}}});
  answer(mostly.main, options_with(200, 8), mostly.drafter);
  CHECK(timings(mostly.main).num_decode_steps < 100);

  Pair never(wrong);
  never.main.prefill({TokenInput{{3, 4, 5}}});
  answer(never.main, options_with(400, 8), never.drafter);
  // One after each pause of 32, 64 and 128 tokens, and a few at the beginning.
  const auto& calls = never.main.fake->call_sizes;
  CHECK(std::count_if(calls.begin() + 1, calls.end(), [](int64_t size) { return size > 1; }) <= 12);
}

TEST_CASE("without a credit wrong guesses lose a fiftieth, however long the prompt is") {
  for (const double cost : {0.05, 0.15, 0.3}) {
    for (const size_t prompt : {3, 100, 500}) {
      for (const int64_t length : {20, 90}) {
        Pair pair(wrong, cost, /*draft_capacity=*/1000, /*calls=*/0);
        pair.main.prefill({TokenInput{Ids(prompt, 3)}});
        pair.main.fake->call_sizes.clear();
        answer(pair.main, options_with(length, 8), pair.drafter);
        CHECK(pair.lost(cost) <= 0.02 * static_cast<double>(length));
        if (length == 90) CHECK_FALSE(pair.draft.fake->call_sizes.empty());
      }
    }
  }
}

TEST_CASE("a draft model that is always wrong loses the load's credit and a fiftieth") {
  for (const size_t prompt : {5, 300}) {
    Pair pair(wrong, /*cost=*/0.1, /*draft_capacity=*/1000);
    double lost = 0.0;
    constexpr int64_t kAnswers = 40;
    for (int64_t number = 0; number < kAnswers; ++number) {
      pair.main.session->reset();
      pair.main.session->begin_request();
      pair.main.prefill({TokenInput{Ids(prompt, 3 + number % 9)}});
      pair.main.fake->call_sizes.clear();
      pair.draft.fake->call_sizes.clear();
      answer(pair.main, options_with(100, 8), pair.drafter);
      lost += pair.lost(0.1);
    }
    CHECK(lost <= 64 + 0.02 * kAnswers * 100);
    CHECK(pair.credit->now() < 64);
  }
}

TEST_CASE("a long prompt is read from its beginning where the answer may gain that") {
  FakeSession main(contract_of(1000, true), FakeExecutor::count_up);
  FakeSession draft(contract_of(1000, false), FakeExecutor::count_up);
  const auto drafter = std::make_shared<Drafter>(draft.session, 0.1);
  main.prefill({TokenInput{Ids(600, 3)}});
  GenerationOptions options = options_with(200, 8);
  Generation generation(main.session, options, drafter);
  // Between two tokens so much of it that nobody waits for long.
  int64_t num_before = 0;
  while (generation.next()) {
    const int64_t num_read = draft.session->position();
    CHECK(num_read - num_before <= 256);
    num_before = num_read;
  }
  const Ids read = draft.session->history();
  const Ids text = main.session->history();
  CHECK(read.size() > 700);
  // What came after its last guess it has not read, and what it guessed last may have no place.
  const auto parted = std::mismatch(read.begin(), read.end(), text.begin(), text.end());
  CHECK((parted.first == read.end() || parted.second == text.end()));
  CHECK(timings(main).num_decode_steps < 60);
}

TEST_CASE("what an answer cannot gain back is not read, nor what the credit does not pay") {
  for (const bool is_short : {true, false}) {
    Pair pair(without_repeats, 0.1, /*draft_capacity=*/1000, is_short ? 64 : 2);
    pair.main.prefill({TokenInput{Ids(300, 3)}});
    answer(pair.main, options_with(is_short ? 10 : 30, 8), pair.drafter);
    CHECK(pair.draft.session->position() < 100);
    CHECK(pair.draft.fake->call_sizes.empty() == is_short);  // its end is tried for the other
  }
}

TEST_CASE("what earlier answers have gained lets more be read for the next") {
  Pair pair(without_repeats, 0.3, /*draft_capacity=*/1000);
  std::vector<int64_t> num_read;
  for (const size_t prompt : {300, 5, 300}) {
    for (FakeSession* f : {&pair.main, &pair.draft}) f->session->reset();
    pair.main.prefill({TokenInput{Ids(prompt, 3)}});
    answer(pair.main, options_with(prompt == 5 ? 300 : 80, 8), pair.drafter);
    num_read.push_back(pair.draft.session->position());
  }
  CHECK(num_read[0] == 0);
  CHECK(num_read[2] > 300);
}

TEST_CASE("how many answers have been drafted makes no difference where calls round differently") {
  std::vector<Ids> calls;
  for (const int64_t num_before : {0, 5}) {
    Contract contract = contract_of(1000, true);
    contract.has_own_attention = false;
    FakeSession main(contract, without_repeats);
    FakeSession draft(contract_of(1000, false), mostly_right);
    const auto drafter = std::make_shared<Drafter>(draft.session, 0.1);
    for (int64_t number = 0; number <= num_before; ++number) {
      for (FakeSession* f : {&main, &draft}) f->session->reset();
      main.prefill({TokenInput{Ids(200, 3)}});
      main.fake->call_sizes.clear();
      answer(main, options_with(100, 8), drafter);
    }
    calls.push_back(main.fake->call_sizes);
  }
  CHECK(calls[0] == calls[1]);
}

TEST_CASE("a draft model reads each token once, and what was wrong anew") {
  Pair pair(without_repeats);
  pair.main.prefill({TokenInput{{3, 4, 5}}});
  answer(pair.main, options_with(60, 8), pair.drafter);
  int64_t num_read = 0;
  for (const int64_t size : pair.draft.fake->call_sizes) num_read += size;
  CHECK(num_read <= 62);
  const Ids text = pair.main.session->history();
  const Ids read = pair.draft.session->history();
  CHECK(std::equal(read.begin(), read.end(), text.begin()));
}

TEST_CASE("a draft model whose calls take too long is never asked") {
  Pair pair(without_repeats, /*cost=*/1.0);
  pair.main.prefill({TokenInput{{3, 4, 5}}});
  answer(pair.main, options_with(60, 8), pair.drafter);
  CHECK(pair.draft.fake->call_sizes.empty());
}

TEST_CASE("a draft model with less context goes on from the end of the text") {
  FakeSession plain(contract_of(600, true), without_repeats);
  for (const int64_t prompt : {3, 200}) {
    Pair pair(without_repeats, 0.05, /*draft_capacity=*/60);
    for (FakeSession* f : {&plain, &pair.main}) {
      f->session->reset();
      f->session->begin_request();
      f->prefill({TokenInput{Ids(static_cast<size_t>(prompt), 3)}});
    }
    CHECK(answer(pair.main, options_with(200, 8), pair.drafter) ==
          answer(plain, options_with(200, 0), nullptr));
    // The rule asks how long the text is, which the end does not tell.
    CHECK(timings(pair.main).num_drafted_tokens > 0);
    const Ids read = pair.draft.session->history();
    const Ids text = pair.main.session->history();
    CHECK(std::search(text.begin() + 40, text.end(), read.begin(), read.begin() + 20) !=
          text.end());
  }
}

TEST_CASE("tokens that the draft model does not have are not drafted from") {
  Contract contract = contract_of(600, false);
  contract.vocab_size = 8;
  FakeSession main(contract_of(600, true), without_repeats);
  FakeSession draft(contract, [](const Ids&) { return 2; });
  main.prefill({TokenInput{{3, 4, 15}}});
  answer(main, options_with(40, 8), std::make_shared<Drafter>(draft.session, 0.05));
  CHECK(main.session->position() == 3 + 39);
  CHECK(draft.fake->call_sizes.empty());
}

TEST_CASE("cancel() ends the wait for the turn of a draft model that others use") {
  Pair pair(without_repeats);
  pair.main.session->begin_request();
  pair.main.prefill({TokenInput{{3, 4, 5}}});
  TurnQueue& turns = *pair.draft.fake->turns();
  turns.enter(0);
  std::vector<int32_t> tokens;
  std::thread answering([&] { tokens = answer(pair.main, options_with(60, 8), pair.drafter); });
  while (turns.num_waiting() == 0) std::this_thread::yield();
  pair.main.session->cancel();
  answering.join();
  CHECK(tokens.size() == 1);
  turns.leave();
}

TEST_CASE("a deadline ends it too") {
  Pair pair(without_repeats);
  pair.main.session->begin_request();
  pair.main.prefill({TokenInput{{3, 4, 5}}});
  TurnQueue& turns = *pair.draft.fake->turns();
  turns.enter(0);
  GenerationOptions options = options_with(60, 8);
  options.timeout_ns = 50'000'000;
  Generation generation(pair.main.session, options, pair.drafter);
  while (generation.next()) {
  }
  CHECK(generation.finish_reason() == FinishReason::kTimeout);
  turns.leave();
}

TEST_CASE("an error of the draft model says whose it is, and the answer can go on without it") {
  Pair pair(without_repeats);
  pair.main.prefill({TokenInput{{3, 4, 5}}});
  pair.draft.fake->fail_at_call = 1;
  Generation generation(pair.main.session, options_with(60, 8), pair.drafter);
  REQUIRE(generation.next());
  CHECK_THROWS_WITH_AS(generation.next(), doctest::Contains("draft_model: "), Error);
  CHECK(generation.next());
  CHECK(pair.main.session->position() >= 3);
}
