// Sessions of text-to-text models, whose decoder looks at the source text instead of reading it.
#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <vector>

#include "runtime/generation.h"
#include "runtime/session.h"
#include "testing/fake_executor.h"

using namespace emm;
using emm::testing::fake_seq2seq_contract;
using emm::testing::fake_speech_contract;
using emm::testing::FakeExecutor;

namespace {

struct Fixture {
  explicit Fixture(Contract contract = fake_seq2seq_contract()) {
    auto executor = std::make_unique<FakeExecutor>(std::move(contract));
    fake = executor.get();
    session = std::make_shared<Session>(std::move(executor));
  }

  FakeExecutor* fake;  // owned by the session
  std::shared_ptr<Session> session;
};

std::string refusal(Session& session, std::vector<Input> inputs, ErrorCode code) {
  try {
    session.begin_prefill(std::move(inputs));
  } catch (const Error& error) {
    CHECK(error.code() == code);
    CHECK_FALSE(session.is_prefilling());
    return error.what();
  }
  FAIL("not refused");
  return "";
}

bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("a source text is encoded once and takes no positions") {
  Fixture f;
  f.session->begin_prefill({SourceInput{{9, 8, 7}}, TokenInput{{3}}});
  CHECK(f.session->prefill_total() == 1);
  CHECK(f.session->next_chunk() == Chunk::Kind::kEncodeText);
  CHECK(f.session->step_prefill());
  CHECK(f.fake->encoder_inputs.size() == 1);
  CHECK(f.session->position() == 0);
  CHECK_FALSE(f.session->step_prefill());
  CHECK(f.session->history() == std::vector<int64_t>{3});
  CHECK(Generation(f.session, {}).next() == 4);
}

TEST_CASE("a source text must fit the encoder and its vocabulary") {
  Fixture f;
  const TokenInput start{{3}};
  const auto too_long =
      refusal(*f.session, {SourceInput{std::vector<int64_t>(13, 1)}, start}, ErrorCode::kCapacity);
  CHECK(has(too_long, "the text has 13 tokens, encoder takes at most 12"));
  CHECK(has(refusal(*f.session, {SourceInput{{16}}, start}, ErrorCode::kInput), "0..15, got 16"));
  CHECK(has(refusal(*f.session, {SourceInput{{-1}}, start}, ErrorCode::kInput), "got -1"));
  CHECK(has(refusal(*f.session, {SourceInput{}, start}, ErrorCode::kInput), "expected a token"));
}

TEST_CASE("a source text stands at the beginning and has tokens after it") {
  Fixture f;
  const SourceInput source{{5}};
  CHECK(has(refusal(*f.session, {source}, ErrorCode::kInput), "expected a source text at the"));
  refusal(*f.session, {TokenInput{{3}}, source, TokenInput{{4}}}, ErrorCode::kInput);
}

TEST_CASE("models take what their encoder is for") {
  const std::vector<float> features(8 * 10, 0.5f);
  const AudioInput clip{{features.data(), DType::kFloat32, {8, 10}}, nullptr};
  Fixture text;
  CHECK(has(refusal(*text.session, {clip, TokenInput{{3}}}, ErrorCode::kInput), "takes no audio"));
  Fixture speech(fake_speech_contract());
  CHECK(has(refusal(*speech.session, {SourceInput{{5}}, TokenInput{{3}}}, ErrorCode::kInput),
            "no encoder of token ids"));
}
