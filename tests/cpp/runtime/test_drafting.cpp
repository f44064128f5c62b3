// Answers with guesses read along: the same tokens in fewer calls of the model.
#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "testing/fake_session.h"

using namespace emm;
using emm::testing::fake_contract;
using emm::testing::FakeExecutor;
using emm::testing::FakeSession;
using emm::testing::without_repeats;

namespace {

using Ids = std::vector<int64_t>;

CacheLimits flat() { return {}; }
CacheLimits ring() { return {/*ring_rows=*/16, /*ring_window=*/8, false, false}; }
CacheLimits sink() { return {/*ring_rows=*/16, /*ring_window=*/4, false, /*is_unbounded=*/true}; }

Contract contract_with(CacheLimits limits, int64_t capacity = 200) {
  Contract contract = fake_contract(capacity, /*max_chunk=*/8);
  contract.cache = limits;
  contract.decoder_name = "text_decoder";
  contract.all_logits = true;
  if (limits.ring_rows > 0) contract.max_chunk = limits.ring_window;
  return contract;
}

// Repeats itself, but for every seventh token.
int64_t nearly_periodic(const Ids& cache) {
  return cache.size() % 7 == 0 ? without_repeats(cache)
                               : static_cast<int64_t>(cache.size() % 5) + 2;
}

GenerationOptions options_with(int64_t max_new_tokens, int64_t num_lookup_tokens) {
  GenerationOptions options;
  options.max_new_tokens = max_new_tokens;
  options.eos_ids = {1};
  options.num_lookup_tokens = num_lookup_tokens;
  return options;
}

std::vector<int32_t> answer(FakeSession& f, GenerationOptions options) {
  Generation generation(f.session, std::move(options));
  std::vector<int32_t> tokens;
  while (const auto token = generation.next()) tokens.push_back(*token);
  return tokens;
}

void expect_the_same(const FakeSession& drafted, const FakeSession& plain) {
  CHECK(drafted.session->history() == plain.session->history());
  CHECK(drafted.session->pending_tokens() == plain.session->pending_tokens());
  CHECK(drafted.session->position() == plain.session->position());
}

// What calls of 2, 4 and 8 tokens take, in thousandths of one: as other programs were measured;
// none: an estimate.
const std::vector<Ids> kCalls = {{}, {1100, 1140, 1480}, {1570, 1990, 2220}};

// What the guesses for the text behind `begin` lose, in calls of one token.
double lost_by_guesses(const Ids& text, size_t begin, const Ids& calls) {
  const auto costs = std::make_shared<CallCosts>();
  for (int i = 0; i < 30 && !calls.empty(); ++i) {
    costs->add(1, 1'000'000);
    for (size_t k = 0; k < calls.size(); ++k) costs->add(int64_t{2} << k, 1000 * calls[k]);
  }
  PromptLookup lookup(10, costs);
  double may_lose = 0.0;
  double lost = 0.0;
  for (size_t size = begin + 1; size < text.size();) {
    const Ids known(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(size));
    const Ids guesses = lookup.guess(known, static_cast<int64_t>(text.size() - size) - 1, may_lose);
    size_t num_right = 0;
    while (num_right < guesses.size() && guesses[num_right] == text[size + num_right]) ++num_right;
    const double more =
        costs->of(static_cast<int64_t>(guesses.size()) + 1) - 1.0 - static_cast<double>(num_right);
    lost += more;
    may_lose += kMayLosePerToken * static_cast<double>(num_right + 1) - more;
    lookup.learn(static_cast<int64_t>(num_right), num_right < guesses.size());
    size += num_right + 1;
  }
  return lost;
}

constexpr double kAny = 100.0;  // calls that may be lost

}  // namespace

TEST_CASE("the answer is the same with guesses that are right, wrong, or both, in any cache") {
  for (const CacheLimits limits : {flat(), ring(), sink()}) {
    for (const auto& rule : {FakeExecutor::count_up, without_repeats, nearly_periodic}) {
      for (const int64_t num_lookup_tokens : {1, 3, 20}) {
        FakeSession plain(contract_with(limits), rule);
        FakeSession drafted(contract_with(limits), rule);
        for (int turn = 0; turn < 3; ++turn) {
          for (FakeSession* f : {&plain, &drafted}) {
            f->session->begin_request();
            f->prefill({TokenInput{{3, 4, 5}}});
          }
          CHECK(answer(drafted, options_with(30, num_lookup_tokens)) ==
                answer(plain, options_with(30, 0)));
          expect_the_same(drafted, plain);
          const RequestTimings& timings = drafted.session->timings();
          CHECK(timings.num_accepted_tokens <= timings.num_drafted_tokens);
          CHECK(timings.num_decode_steps + timings.num_accepted_tokens == 29);
        }
      }
    }
  }
}

TEST_CASE("text that repeats itself takes few calls, text that does not hardly more than before") {
  FakeSession periodic(contract_with(flat(), 600));
  periodic.prefill({TokenInput{{3, 4, 5}}});
  answer(periodic, options_with(400, 7));
  CHECK(periodic.session->timings().num_decode_steps < 100);

  for (const int64_t length : {20, 60, 400}) {
    FakeSession random(contract_with(flat(), 600), without_repeats);
    random.prefill({TokenInput{{3, 4, 5}}});
    random.fake->call_sizes.clear();
    answer(random, options_with(length, 7));
    double lost = -static_cast<double>(random.session->timings().num_accepted_tokens);
    for (const int64_t size : random.fake->call_sizes)
      lost += random.session->costs()->of(size) - 1.0;
    CHECK(lost <= 0.02 * static_cast<double>(length));
  }
}

TEST_CASE("an answer of any length loses less than a fiftieth where nothing is repeated") {
  for (const Ids& calls : kCalls) {
    for (const size_t length : {6, 12, 25, 50, 100, 400}) {
      for (size_t start = 1; start < 60; start += 3) {
        Ids text(start, 3);
        while (text.size() < start + length) text.push_back(without_repeats(text));
        CHECK(lost_by_guesses(text, start, calls) < 0.02 * static_cast<double>(length));
      }
    }
  }
}

TEST_CASE("text that misleads again and again loses little more") {
  for (const Ids& calls : kCalls) {
    for (const size_t length : {12, 25, 100, 400}) {
      for (const size_t repeated : {3, 6, 12}) {
        // So many tokens are those of before, and then comes another one.
        Ids text = {2};
        while (text.size() < 40 + length) {
          for (size_t i = 0; i < repeated; ++i) text.push_back(static_cast<int64_t>(3 + i));
          text.push_back(static_cast<int64_t>(20 + text.size()));
        }
        text.resize(40 + length);
        CHECK(lost_by_guesses(text, 40, calls) <
              kMayLosePerToken * static_cast<double>(length) + kMostTrust);
      }
    }
  }
}

TEST_CASE("a copy is guessed from its beginning, and a short one saves calls too") {
  for (const Ids& calls : kCalls) {
    Ids text;
    while (text.size() < 150) text.push_back(static_cast<int64_t>(text.size()));
    for (int64_t token = 20; token < 148; ++token) text.push_back(token);
    CHECK(lost_by_guesses(text, 150, calls) < -0.5 * 128);
    text.resize(150 + 40);
    CHECK(lost_by_guesses(text, 150, calls) < -0.15 * 40);
  }
}

TEST_CASE("what was not read is compared with what comes, and trusted where it was right") {
  const Ids text = {7,  8, 9, 20, 21, 22, 23, 24, 25, 26, 27,
                    28, 1, 7, 8,  9,  20, 21, 22, 23, 24, 25};
  PromptLookup lookup(4);
  size_t num_alike = 16;
  const auto guesses_at = [&](size_t size) {
    return lookup.guess({text.begin(), text.begin() + static_cast<std::ptrdiff_t>(size)}, 4, 0.15);
  };
  // A call of two tokens takes 0.3 more, which right guesses that are not read allow by and by.
  while (num_alike < text.size() && guesses_at(num_alike).empty()) ++num_alike;
  CHECK(num_alike > 17);
  CHECK(num_alike < text.size());
  lookup.learn(0, true);
  CHECK(guesses_at(num_alike).empty());
}

TEST_CASE(
    "calls are measured where it makes no difference to an answer how many tokens they read") {
  for (const bool has_own_attention : {true, false}) {
    Contract contract = contract_with(flat());
    contract.has_own_attention = has_own_attention;
    std::vector<Ids> sizes;
    for (const int milliseconds : {0, 2}) {
      auto executor = std::make_unique<FakeExecutor>(contract, [&](const Ids& cache) {
        // The rule is asked for each row: a call of more tokens takes as much longer.
        std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
        return nearly_periodic(cache);
      });
      FakeExecutor* fake = executor.get();
      const auto session = std::make_shared<Session>(std::move(executor));
      session->begin_prefill({TokenInput{{3, 4, 5}}});
      while (session->step_prefill()) {
      }
      Generation generation(session, options_with(60, 7));
      while (generation.next()) {
      }
      CHECK((session->costs()->one_ns() > 0.0) == has_own_attention);
      sizes.push_back({fake->call_sizes.begin(), fake->call_sizes.end()});
    }
    if (!has_own_attention) CHECK(sizes[0] == sizes[1]);
  }
}

TEST_CASE("nothing is read beyond the last token that is asked for or has room") {
  FakeSession f(contract_with(flat()));
  f.prefill({TokenInput{{3, 4, 5, 6, 7, 8, 9, 10, 11, 2, 3, 4}}});
  f.fake->call_sizes.clear();
  answer(f, options_with(4, 7));
  int64_t num_read = 0;
  for (const int64_t size : f.fake->call_sizes) num_read += size;
  CHECK(num_read == 3);  // the first comes from the prompt, the last is not read

  FakeSession plain(contract_with(flat(), 20));
  FakeSession drafted(contract_with(flat(), 20));
  for (FakeSession* g : {&plain, &drafted})
    g->prefill({TokenInput{{3, 4, 5, 6, 7, 8, 9, 10, 11, 2, 3, 4}}});
  CHECK(answer(drafted, options_with(-1, 7)) == answer(plain, options_with(-1, 0)));
  CHECK(drafted.session->is_full());
  expect_the_same(drafted, plain);
}

TEST_CASE("an answer that is left at any token leaves what one without guesses does") {
  for (const CacheLimits limits : {flat(), ring(), sink()}) {
    for (int64_t end = 1; end < 30; ++end) {
      FakeSession plain(contract_with(limits), nearly_periodic);
      FakeSession drafted(contract_with(limits), nearly_periodic);
      for (FakeSession* f : {&plain, &drafted}) {
        f->prefill({TokenInput{{3, 4, 5}}});
        Generation generation(f->session, options_with(-1, f == &drafted ? 5 : 0));
        for (int64_t i = 0; i < end; ++i) REQUIRE(generation.next());
        f->session->cancel();
        CHECK(!generation.next());
        CHECK(generation.finish_reason() == FinishReason::kCancelled);
        f->session->begin_request();
      }
      expect_the_same(drafted, plain);
      if (end % 4 == 0) {
        const auto saved = drafted.session->save();
        drafted.session->reset();
        drafted.session->restore(*saved);
      } else if (end % 4 == 1) {
        for (FakeSession* f : {&plain, &drafted}) {
          f->session->rewind(f->session->position() - 1);
          f->prefill({TokenInput{{9}}});
        }
      } else if (end % 4 == 2) {
        for (FakeSession* f : {&plain, &drafted}) f->prefill({TokenInput{{9, 2}}});
      }
      CHECK(answer(drafted, options_with(9, 5)) == answer(plain, options_with(9, 0)));
      expect_the_same(drafted, plain);
    }
  }
}

TEST_CASE("forced tokens are those that were read ahead, or others") {
  for (const int64_t forced : {0, 1, 2, 3}) {
    FakeSession plain(contract_with(flat()), nearly_periodic);
    FakeSession drafted(contract_with(flat()), nearly_periodic);
    std::vector<std::vector<int32_t>> answers;
    for (FakeSession* f : {&plain, &drafted}) {
      f->prefill({TokenInput{{3, 4, 5, 6, 2, 3, 4, 5, 6, 2, 3, 4, 5, 6}}});
      Generation generation(f->session, options_with(24, f == &drafted ? 5 : 0));
      std::vector<int32_t>& tokens = answers.emplace_back();
      while (true) {
        // Often what would have come anyway, sometimes not.
        const bool is_forced = tokens.size() % 4 < static_cast<size_t>(forced);
        const auto coming = static_cast<int32_t>((tokens.size() + 14) % 5 + 2);
        const auto token = is_forced ? generation.next_forced(coming) : generation.next();
        if (!token) break;
        tokens.push_back(*token);
      }
    }
    CHECK(answers[0].size() == 24);
    CHECK(answers[0] == answers[1]);
    expect_the_same(drafted, plain);
  }
}

TEST_CASE("a call with guesses that fails is repeated") {
  FakeSession plain(contract_with(flat()));
  FakeSession drafted(contract_with(flat()));
  for (FakeSession* f : {&plain, &drafted})
    f->prefill({TokenInput{{3, 4, 5, 6, 7, 8, 9, 10, 11, 2, 3, 4, 5}}});
  Generation generation(drafted.session, options_with(8, 5));
  std::vector<int32_t> tokens = {*generation.next()};
  drafted.fake->fail_at_call = static_cast<int64_t>(drafted.fake->call_sizes.size());
  CHECK_THROWS_AS(generation.next(), Error);
  while (const auto token = generation.next()) tokens.push_back(*token);
  CHECK(tokens == answer(plain, options_with(8, 0)));
  CHECK(*std::max_element(drafted.fake->call_sizes.begin() + 2, drafted.fake->call_sizes.end()) >
        1);
}

TEST_CASE("without a cache the guesses are read with everything else") {
  Contract contract = contract_with(flat());
  contract.position_style = PositionStyle::kNone;
  contract.capacity = contract.max_chunk = 60;
  FakeSession plain(contract);
  FakeSession drafted(contract);
  for (FakeSession* f : {&plain, &drafted}) f->prefill({TokenInput{{3, 4, 5}}});
  CHECK(answer(drafted, options_with(-1, 5)) == answer(plain, options_with(-1, 0)));
  expect_the_same(drafted, plain);
  CHECK(drafted.fake->call_sizes.size() < plain.fake->call_sizes.size() / 2);
}

TEST_CASE("a caller may say how many of the guesses can come") {
  FakeSession f(contract_with(flat()));
  f.prefill({TokenInput{{3, 4, 5, 6, 7, 8, 9, 10, 11, 2, 3, 4}}});
  Generation generation(f.session, options_with(10, 5));
  std::vector<int32_t> tokens;
  std::vector<std::pair<size_t, Ids>> asked;
  while (const auto token = generation.next({}, [&](const Ids& guesses) {
    asked.emplace_back(tokens.size(), guesses);
    return size_t{1};
  })) {
    tokens.push_back(*token);
  }
  REQUIRE(!asked.empty());
  CHECK(asked[0].second[0] == tokens[asked[0].first]);
  CHECK(*std::max_element(f.fake->call_sizes.begin() + 2, f.fake->call_sizes.end()) == 2);
}

TEST_CASE("models that cannot take guesses back or give one row of logits are refused") {
  Contract recurrent = contract_with({0, 0, /*is_recurrent=*/true, false});
  FakeSession f(recurrent);
  CHECK_THROWS_WITH_AS(
      Generation(f.session, options_with(5, 3)),
      "prompt_lookup_num_tokens: expected a model that can go back in its context, "
      "text_decoder has a recurrent state",
      Error);
  Contract last_row = contract_with(flat());
  last_row.all_logits = false;
  FakeSession g(last_row);
  CHECK_THROWS_WITH_AS(
      Generation(g.session, options_with(5, 3)),
      "prompt_lookup_num_tokens: expected a model that gives logits for each token "
      "of a call, text_decoder gives those of the last one",
      Error);
}

TEST_CASE("guesses are what followed the longest earlier occurrence, the latest of equals") {
  PromptLookup lookup(4);
  CHECK(lookup.guess({2, 3, 4, 5}, 4, kAny).empty());
  CHECK(lookup.guess({3, 3}, 4, kAny).empty());
  // 7 8 9 stands there with 1 before it and with 2; only one of them goes on like the end.
  const Ids text = {1, 7, 8, 9, 20, 21, 2, 7, 8, 9, 30, 31, 5, 1, 7, 8, 9};
  CHECK(PromptLookup(1).guess(text, 4, kAny) == Ids{20});
  CHECK(PromptLookup(1).guess({7, 8, 9, 20, 6, 7, 8, 9, 30, 6, 7, 8, 9}, 4, kAny) == Ids{30});
  CHECK(PromptLookup(1).guess({6, 7, 8, 20, 6, 7, 8, 30, 4, 6, 7, 8}, 4, kAny) == Ids{30});
  CHECK(PromptLookup(4).guess({7, 8, 20, 5, 7, 8, 30, 4, 7, 8}, 4, kAny).empty());
  CHECK(PromptLookup(4).guess(text, 0, kAny).empty());
  // Behind media nothing is guessed.
  CHECK(PromptLookup(4).guess({1, 7, 8, 9, 4, -1, -1, 5, 1, 7, 8, 9}, 4, kAny) == Ids{4});
  CHECK(PromptLookup(4).guess({1, 7, 8, 9, -1, 5, 1, 7, 8, 9}, 4, kAny).empty());
}

TEST_CASE("a repetition is taken to go on") {
  const Ids text = {9, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3};
  PromptLookup lookup(6);
  Ids guesses;
  for (int i = 0; i < 8; ++i) {
    guesses = lookup.guess(text, 6, kAny);
    lookup.learn(static_cast<int64_t>(guesses.size()), false);
  }
  CHECK(guesses == Ids{2, 3, 2, 3, 2, 3});
}

TEST_CASE("more is guessed when guesses are right, and less when they are wrong, down to nothing") {
  Ids text = {1, 7, 8, 9, 20, 21, 22, 23, 24, 25, 26, 27, 1, 7, 8, 9};
  PromptLookup lookup(10);
  const size_t first = lookup.guess(text, 10, kAny).size();
  lookup.learn(static_cast<int64_t>(first), false);
  for (int i = 0; i < 10; ++i)
    lookup.learn(static_cast<int64_t>(lookup.guess(text, 10, kAny).size()), false);
  CHECK(lookup.guess(text, 10, kAny).size() > first);
  int num_wrong = 0;
  while (!lookup.guess(text, 10, kAny).empty() && ++num_wrong < 20) lookup.learn(0, true);
  CHECK(num_wrong < 10);
  // What would have been right brings guesses back.
  for (int i = 0; i < 20 && lookup.guess(text, 10, kAny).empty(); ++i)
    text.push_back(text[text.size() - 12]);
  CHECK_FALSE(lookup.guess(text, 10, kAny).empty());
}
