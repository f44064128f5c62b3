// Sessions: positions, prefill, errors and cancellation, on the fake executor.
#include <doctest/doctest.h>

#include <memory>
#include <thread>
#include <vector>

#include "testing/fake_session.h"

using namespace emm;
using emm::testing::fake_contract;
using emm::testing::FakeExecutor;
using emm::testing::FakeSession;
using emm::testing::image;
using emm::testing::kPixels;

namespace {

TokenInput tokens(int64_t count) { return {std::vector<int64_t>(static_cast<size_t>(count), 5)}; }

}  // namespace

TEST_CASE("mixed inputs reach the decoder in order and in chunks no longer than the bound") {
  FakeSession f;
  f.prefill({tokens(3), image(), tokens(10)});
  CHECK(f.fake->call_sizes == std::vector<int64_t>{3, 4, 8, 2});
  CHECK(f.session->position() == 17);
  CHECK(f.session->history() == f.fake->cache);
  CHECK(f.session->history()[3] == kMediaPosition);
  CHECK(f.session->timings().num_prompt_positions == 17);
}

TEST_CASE("a prompt's positions are counted before anything runs, however long it is") {
  FakeSession f;
  CHECK(f.session->count_positions({tokens(3), image(), tokens(10)}) == 17);
  CHECK(f.session->count_positions({tokens(1000000)}) == 1000000);
  CHECK(f.fake->call_sizes.empty());
  f.prefill({tokens(2)});
  f.generate(3);  // whose last token is pending
  CHECK(f.session->count_positions({tokens(1)}) == 2);
  CHECK(f.session->position() == 4);
}

TEST_CASE("an image reaches the encoder by pointer and its rows reach the decoder by pointer") {
  FakeSession f;
  f.prefill({image()});
  REQUIRE(f.fake->encoder_inputs.size() == 1);
  CHECK(f.fake->encoder_inputs[0] == kPixels.data());
  CHECK(f.fake->last_embeddings != nullptr);
}

TEST_CASE("the last token of a turn is fed at the start of the next one") {
  FakeSession f;
  f.prefill({tokens(2)});
  const std::vector<int32_t> answer = f.generate(3);
  CHECK(f.session->position() == 4);
  CHECK(f.session->pending_tokens() == std::vector<int64_t>{answer.back()});
  f.prefill({tokens(1)});
  CHECK(f.session->position() == 6);
  CHECK(f.fake->cache == std::vector<int64_t>{5, 5, answer[0], answer[1], answer[2], 5});
}

TEST_CASE("two turns give the tokens that one session fed the same history gives") {
  FakeSession turns;
  turns.prefill({tokens(4)});
  const auto first = turns.generate(5);
  turns.prefill({TokenInput{{7, 3}}});
  const auto second = turns.generate(5);

  FakeSession whole;
  TokenInput all = tokens(4);
  all.ids.insert(all.ids.end(), first.begin(), first.end());
  all.ids.insert(all.ids.end(), {7, 3});
  whole.prefill({all});
  CHECK(whole.generate(5) == second);
}

TEST_CASE("a prompt that does not fit is refused before anything runs") {
  FakeSession f(fake_contract(/*capacity=*/16));
  f.prefill({tokens(4)});
  f.fake->call_sizes.clear();
  try {
    f.session->begin_prefill({image(), tokens(9)});
    FAIL("expected a capacity error");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::kCapacity);
    CHECK(error.needed() == 13);
    CHECK(error.available() == 12);
  }
  CHECK(f.fake->call_sizes.empty());
  CHECK(f.fake->encoder_inputs.empty());
  CHECK(f.session->position() == 4);
  f.prefill({image(), tokens(8)});
  CHECK(f.session->position() == 16);
}

TEST_CASE(
    "an encoder that returns more rows than declared is caught before the decoder is called beyond "
    "the cache") {
  FakeSession f(fake_contract(/*capacity=*/8));
  f.fake->num_image_rows = 9;
  f.session->begin_prefill({tokens(2), image()});
  CHECK(f.session->step_prefill());
  CHECK_THROWS_AS(f.session->step_prefill(), Error);
  CHECK(f.session->position() == 0);
  CHECK_FALSE(f.session->is_prefilling());
}

TEST_CASE("a failure in the middle of a prompt leaves the session where it stood") {
  FakeSession f;
  f.prefill({tokens(2)});
  f.generate(2);
  const auto history = f.session->history();
  const auto pending = f.session->pending_tokens();
  f.fake->fail_at_call = static_cast<int64_t>(f.fake->call_sizes.size()) + 2;
  CHECK_THROWS_AS(f.prefill({tokens(3), image(), tokens(3)}), Error);
  CHECK(f.session->history() == history);
  CHECK(f.session->pending_tokens() == pending);
  f.prefill({tokens(3)});
  CHECK(f.session->history() == f.fake->cache);
}

TEST_CASE("a failed decode step can be tried again and loses no token") {
  FakeSession f;
  f.prefill({tokens(2)});
  Sampler sampler{SamplingOptions{}};
  const int32_t first = f.session->step(sampler).value();
  f.fake->fail_at_call = static_cast<int64_t>(f.fake->call_sizes.size());
  CHECK_THROWS_AS(f.session->step(sampler), Error);
  CHECK(f.session->pending_tokens() == std::vector<int64_t>{first});
  f.session->step(sampler);
  CHECK(f.fake->cache.back() == first);
}

TEST_CASE("aborting a prompt takes back what was read of it") {
  FakeSession f;
  f.prefill({tokens(2)});
  f.session->begin_prefill({TokenInput{std::vector<int64_t>(20, 7)}});
  CHECK(f.session->step_prefill());
  CHECK(f.session->prefill_done() == 8);
  CHECK(f.session->prefill_total() == 20);
  f.session->abort_prefill();
  CHECK(f.session->position() == 2);
  // The executor's own logits are those of the eighth token by now.
  FakeSession untouched;
  untouched.prefill({tokens(2)});
  CHECK(f.generate(1) == untouched.generate(1));
}

TEST_CASE("generation ends for each of its reasons") {
  FinishReason reason = FinishReason::kNone;
  SUBCASE("length") {
    FakeSession f;
    f.prefill({tokens(2)});
    CHECK(f.generate(4, &reason).size() == 4);
    CHECK(reason == FinishReason::kLength);
  }
  SUBCASE("no tokens asked for") {
    FakeSession f;
    f.prefill({tokens(2)});
    CHECK(f.generate(0, &reason).empty());
    CHECK(reason == FinishReason::kLength);
  }
  SUBCASE("an end token, which is not returned") {
    FakeSession f(fake_contract(),
                  [](const std::vector<int64_t>& cache) { return cache.size() < 5 ? 9 : 1; });
    f.prefill({tokens(2)});
    CHECK(f.generate(-1, &reason) == std::vector<int32_t>{9, 9, 9});
    CHECK(reason == FinishReason::kStop);
    CHECK(f.session->pending_tokens() == std::vector<int64_t>{1});
  }
  SUBCASE("an end token as the very first one") {
    FakeSession f(fake_contract(), [](const std::vector<int64_t>&) { return 1; });
    f.prefill({tokens(2)});
    CHECK(f.generate(-1, &reason).empty());
    CHECK(reason == FinishReason::kStop);
  }
  SUBCASE("a full context: the last token needs no room of its own") {
    FakeSession f(fake_contract(/*capacity=*/6));
    f.prefill({tokens(4)});
    CHECK(f.generate(-1, &reason).size() == 3);
    CHECK(reason == FinishReason::kCapacity);
    CHECK(f.session->position() == 6);
  }
  SUBCASE("cancellation from another thread") {
    FakeSession f;
    f.prefill({tokens(2)});
    f.fake->before_call = [&] {
      if (f.fake->call_sizes.size() == 3) std::thread([&] { f.session->cancel(); }).join();
    };
    CHECK(f.generate(-1, &reason).size() == 4);
    CHECK(reason == FinishReason::kCancelled);
    CHECK(f.session->history() == f.fake->cache);
    f.session->begin_request();
    CHECK_FALSE(f.session->is_cancelled());
  }
}

TEST_CASE("a second thread that comes in between gets a busy error") {
  FakeSession f;
  ErrorCode code = ErrorCode::kExecution;
  f.fake->before_call = [&] {
    std::thread([&] {
      try {
        f.session->reset();
      } catch (const Error& error) {
        code = error.code();
      }
    }).join();
  };
  f.prefill({tokens(2)});
  CHECK(code == ErrorCode::kBusy);
}

TEST_CASE("reset, rewind and snapshots bring back earlier states") {
  FakeSession f;
  f.prefill({TokenInput{{3, 4, 5}}});
  const auto snapshot = f.session->save();
  const auto answer = f.generate(4);
  f.session->restore(*snapshot);
  CHECK(f.generate(4) == answer);

  f.session->rewind(2);
  f.prefill({TokenInput{{5}}});
  CHECK(f.generate(4) == answer);
  CHECK_THROWS_AS(f.session->rewind(99), Error);
  CHECK_THROWS_AS(f.session->rewind(-1), Error);

  f.session->reset();
  CHECK(f.session->position() == 0);
  CHECK(f.fake->cache.empty());
  CHECK_FALSE(f.session->can_generate());
  Sampler sampler{SamplingOptions{}};
  CHECK_THROWS_AS(f.session->step(sampler), Error);
}

TEST_CASE("inputs that the model cannot take are refused by name") {
  Contract contract = fake_contract();
  contract.methods.erase("vision_encoder");
  FakeSession f(contract);
  CHECK_THROWS_WITH_AS(f.session->begin_prefill({tokens(1), image()}),
                       "input 1 (image): the model has no vision_encoder and takes no image",
                       Error);
  CHECK_THROWS_WITH_AS(f.session->begin_prefill({TokenInput{{16}}}),
                       "input 0 (tokens): expected token ids in 0..15, got 16", Error);
  CHECK_THROWS_AS(f.session->begin_prefill({TokenInput{{-1}}}), Error);
  CHECK_THROWS_AS(f.session->begin_prefill({}), Error);
  CHECK_THROWS_AS(f.session->begin_prefill({TokenInput{}}), Error);
  const std::vector<float> rows(6);
  CHECK_THROWS_AS(
      f.session->begin_prefill({EmbeddingInput{{rows.data(), DType::kFloat32, {2, 3}}, nullptr}}),
      Error);
  CHECK_NOTHROW(
      f.session->begin_prefill({EmbeddingInput{{rows.data(), DType::kFloat32, {3, 2}}, nullptr}}));
}

TEST_CASE("a model without a KV cache reads the whole conversation at each step") {
  Contract contract = fake_contract(/*capacity=*/12, /*max_chunk=*/12);
  contract.position_style = PositionStyle::kNone;
  FakeSession f(contract);
  f.prefill({tokens(3)});
  const auto answer = f.generate(3);
  CHECK(f.fake->call_sizes == std::vector<int64_t>{3, 4, 5});

  FakeSession cached;
  cached.prefill({tokens(3)});
  CHECK(cached.generate(3) == answer);
}

TEST_CASE("a model that takes one token per call gets its prompt token by token") {
  FakeSession f(fake_contract(/*capacity=*/16, /*max_chunk=*/1));
  f.prefill({tokens(3), image()});
  CHECK(f.fake->call_sizes == std::vector<int64_t>(7, 1));
}

TEST_CASE("rows of media stand at the placeholder that the input or else the program names") {
  Contract contract = fake_contract();
  contract.is_joint = true;
  contract.image_token_id = 3;
  contract.audio_token_id = 4;
  FakeSession f(contract);
  ImageInput marked = image();
  marked.placeholder_id = 9;
  f.prefill({image()});
  f.prefill({marked});
  f.prefill({EmbeddingInput{{kPixels.data(), DType::kFloat32, {2, 2}}, nullptr}});
  CHECK(f.fake->placeholder_ids == std::vector<int64_t>{3, 9, 3});

  contract.placeholder_ids = {3, 4};  // at another the decoder would not read the rows
  FakeSession strict(contract);
  strict.prefill({marked});
  CHECK(strict.fake->placeholder_ids == std::vector<int64_t>{3});
}
