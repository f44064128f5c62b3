// When an answer ends and what is recorded of it, on the fake executor.
#include <doctest/doctest.h>

#include <cmath>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "runtime/generation.h"
#include "testing/fake_executor.h"

using namespace emm;
using emm::testing::fake_contract;
using emm::testing::FakeExecutor;

namespace {

// The fake model counts 2, 3, ... 11, 2, ...; a prompt that ends in 5 is answered by 6, 7, 8.
std::shared_ptr<Session> session_after_5() {
  auto session = std::make_shared<Session>(std::make_unique<FakeExecutor>(fake_contract()));
  session->begin_request();
  session->begin_prefill({TokenInput{{4, 5}}});
  while (session->step_prefill()) {
  }
  return session;
}

GenerationOptions options_with(int64_t max_new_tokens) {
  GenerationOptions options;
  options.max_new_tokens = max_new_tokens;
  options.eos_ids = {1};
  return options;
}

std::vector<int32_t> all_of(Generation& generation) {
  std::vector<int32_t> tokens;
  while (const auto token = generation.next()) tokens.push_back(*token);
  return tokens;
}

}  // namespace

TEST_CASE("a stop token ends the answer and is returned only if asked for") {
  auto options = options_with(-1);
  options.stop_token_ids = {3, 8};
  SUBCASE("left out") {
    Generation generation(session_after_5(), options);
    CHECK(all_of(generation) == std::vector<int32_t>{6, 7});
    CHECK(generation.finish_reason() == FinishReason::kStop);
    CHECK(generation.stop_token() == 8);
    CHECK(generation.records().size() == 3);
  }
  SUBCASE("included") {
    options.include_stop = true;
    Generation generation(session_after_5(), options);
    CHECK(all_of(generation) == std::vector<int32_t>{6, 7, 8});
    CHECK(generation.finish_reason() == FinishReason::kStop);
    CHECK_FALSE(generation.next().has_value());
  }
}

TEST_CASE("end and stop tokens wait for min_new_tokens") {
  auto options = options_with(5);
  options.stop_token_ids = {7};
  options.sampling.min_new_tokens = 4;
  Generation generation(session_after_5(), options);
  const auto tokens = all_of(generation);
  CHECK(tokens.size() >= 4);
  CHECK(tokens[0] == 6);
  CHECK(tokens[1] != 7);
}

TEST_CASE("max_positions counts the prompt and a token that the model has not read yet") {
  auto options = options_with(-1);
  options.max_positions = 5;
  const auto session = session_after_5();
  Generation generation(session, options);
  CHECK(all_of(generation).size() == 3);
  CHECK(generation.finish_reason() == FinishReason::kLength);
  Generation more(session, options);
  CHECK(all_of(more).empty());
}

TEST_CASE("a timeout ends the answer at the next token") {
  auto options = options_with(-1);
  options.timeout_ns = 0;
  Generation generation(session_after_5(), options);
  CHECK(all_of(generation).empty());
  CHECK(generation.finish_reason() == FinishReason::kTimeout);
}

TEST_CASE("a timeout keeps the tokens that came before it") {
  auto options = options_with(-1);
  options.timeout_ns = 200'000'000;
  const auto session = session_after_5();
  Generation generation(session, options);
  CHECK(generation.next() == 6);
  CHECK(generation.next() == 7);
  while (now_ns() - session->timings().start_ns < options.timeout_ns) {
  }
  CHECK_FALSE(generation.next().has_value());
  CHECK(generation.finish_reason() == FinishReason::kTimeout);
  CHECK(session->history() == std::vector<int64_t>{4, 5, 6});
  CHECK(session->pending_tokens() == std::vector<int64_t>{7});
}

TEST_CASE("each token is recorded with its time and its logprobs") {
  auto options = options_with(3);
  options.sampling.num_logprobs = 2;
  const auto session = session_after_5();
  Generation generation(session, options);
  const auto tokens = all_of(generation);
  REQUIRE(generation.records().size() == 3);
  int64_t before = 0;
  for (size_t i = 0; i < 3; ++i) {
    const TokenRecord& record = generation.records()[i];
    CHECK(record.token == tokens[i]);
    CHECK(record.time_ns >= before);
    before = record.time_ns;
    // One logit is 10, fifteen are 0.
    CHECK(record.logprob == doctest::Approx(10.0 - std::log(std::exp(10.0) + 15.0)));
    REQUIRE(record.top_logprobs.size() == 2);
    CHECK(record.top_logprobs[0].token == tokens[i]);
    CHECK(record.top_logprobs[1].token == 0);
  }
  CHECK(before <= now_ns() - session->timings().start_ns);
}

TEST_CASE("a hook that throws takes no token and the answer can go on") {
  const auto session = session_after_5();
  Generation generation(session, options_with(3));
  CHECK(generation.next() == 6);
  SampleHooks hooks;
  hooks.edit = [](float*, int64_t, const std::vector<int64_t>&) { throw std::runtime_error("no"); };
  CHECK_THROWS_AS(generation.next(hooks), std::runtime_error);
  CHECK(session->history() == std::vector<int64_t>{4, 5, 6});
  CHECK(all_of(generation) == std::vector<int32_t>{7, 8});
}

TEST_CASE("a hook gets the tokens of prompt and answer") {
  const auto session = session_after_5();
  Generation generation(session, options_with(3));
  generation.next();
  SampleHooks hooks;
  hooks.edit = [](float* row, int64_t vocab_size, const std::vector<int64_t>& history) {
    CHECK(history == std::vector<int64_t>{4, 5, 6});
    CHECK(vocab_size == 16);
    row[9] = 20.0f;
  };
  CHECK(generation.next(hooks) == 9);
}

TEST_CASE("options that name a token the model does not have are refused before anything runs") {
  const auto session = session_after_5();
  auto options = options_with(3);
  options.stop_token_ids = {16};
  CHECK_THROWS_WITH_AS(Generation(session, options),
                       "stop_token_ids: expected token ids in 0..15, got 16", Error);
  options.stop_token_ids = {};
  options.sampling.suppress_tokens = {99};
  CHECK_THROWS_AS(Generation(session, options), Error);
}

TEST_CASE("forced tokens are read together, before the next one is chosen") {
  auto executor = std::make_unique<FakeExecutor>(fake_contract());
  const FakeExecutor& fake = *executor;
  const auto session = std::make_shared<Session>(std::move(executor));
  session->begin_request();
  session->begin_prefill({TokenInput{{4, 5}}});
  while (session->step_prefill()) {
  }
  Generation generation(session, options_with(-1));
  CHECK(generation.next() == 6);
  for (const int32_t token : {9, 3, 4}) CHECK(generation.next_forced(token) == token);
  CHECK(session->pending_tokens() == std::vector<int64_t>{6, 9, 3, 4});
  CHECK(fake.call_sizes == std::vector<int64_t>{2});
  CHECK(generation.next() == 5);
  CHECK(fake.call_sizes == std::vector<int64_t>{2, 4});
  CHECK(session->history() == std::vector<int64_t>{4, 5, 6, 9, 3, 4});
  CHECK(session->history() == fake.cache);
  CHECK(generation.records().size() == 5);
  CHECK(session->timings().num_generated_tokens == 5);
  CHECK(session->timings().num_forced_tokens == 3);
  CHECK(session->timings().num_decode_steps == 1);
}

TEST_CASE("forced tokens beyond a decoder call's size take several calls") {
  auto executor = std::make_unique<FakeExecutor>(fake_contract(32, 3));
  const FakeExecutor& fake = *executor;
  const auto session = std::make_shared<Session>(std::move(executor));
  session->begin_request();
  session->begin_prefill({TokenInput{{4, 5}}});
  while (session->step_prefill()) {
  }
  Generation generation(session, options_with(-1));
  for (int32_t i = 0; i < 7; ++i) CHECK(generation.next_forced(2 + i) == 2 + i);
  CHECK(generation.next() == 9);
  CHECK(fake.call_sizes == std::vector<int64_t>{2, 3, 3, 1});
  CHECK(session->history() == fake.cache);
}

TEST_CASE("forced tokens end where others would, and are the next prompt's beginning") {
  SUBCASE("at an end token") {
    Generation generation(session_after_5(), options_with(-1));
    CHECK(generation.next_forced(9) == 9);
    CHECK_FALSE(generation.next_forced(1).has_value());
    CHECK(generation.finish_reason() == FinishReason::kStop);
    CHECK(generation.stop_token() == 1);
    CHECK_FALSE(generation.next_forced(9).has_value());
  }
  SUBCASE("at max_new_tokens") {
    Generation generation(session_after_5(), options_with(2));
    CHECK(generation.next_forced(9) == 9);
    CHECK(generation.next_forced(9) == 9);
    CHECK_FALSE(generation.next_forced(9).has_value());
    CHECK(generation.finish_reason() == FinishReason::kLength);
  }
  SUBCASE("when cancelled") {
    const auto session = session_after_5();
    Generation generation(session, options_with(-1));
    CHECK(generation.next_forced(9) == 9);
    CHECK(generation.next_forced(8) == 8);
    session->cancel();
    CHECK_FALSE(generation.next_forced(7).has_value());
    CHECK(generation.finish_reason() == FinishReason::kCancelled);
    CHECK(session->history() == std::vector<int64_t>{4, 5});
    session->begin_request();
    session->begin_prefill({TokenInput{{2}}});
    while (session->step_prefill()) {
    }
    CHECK(session->history() == std::vector<int64_t>{4, 5, 9, 8, 2});
  }
  SUBCASE("when the context is full, as many as could have been sampled") {
    const auto session = session_after_5();
    Generation generation(session, options_with(-1));
    int64_t count = 0;
    while (generation.next_forced(9)) ++count;
    CHECK(generation.finish_reason() == FinishReason::kCapacity);
    CHECK(count ==
          static_cast<int64_t>(
              all_of(*std::make_unique<Generation>(session_after_5(), options_with(-1))).size()));
  }
}

TEST_CASE("a forced token must be the model's and has no logprob") {
  Generation generation(session_after_5(), options_with(-1));
  CHECK_THROWS_AS(generation.next_forced(16), Error);
  auto options = options_with(-1);
  options.sampling.num_logprobs = 0;
  Generation with_logprobs(session_after_5(), options);
  CHECK_THROWS_AS(with_logprobs.next_forced(3), Error);
}

TEST_CASE("forced tokens leave the random numbers where a mask of one token does") {
  auto options = options_with(-1);
  options.sampling.temperature = 50.0f;
  options.sampling.top_p = 0.9f;
  options.sampling.seed = 11;
  Generation by_mask(session_after_5(), options);
  Generation by_force(session_after_5(), options);
  for (int round = 0; round < 4; ++round) {
    const uint32_t only_9 = 1u << 9;
    SampleHooks hooks;
    hooks.allowed = &only_9;
    CHECK(by_mask.next(hooks) == 9);
    CHECK(by_force.next_forced(9) == 9);
    CHECK(by_mask.next() == by_force.next());
  }
}
