// Sessions of speech models, whose decoder looks at the last clip instead of reading it.
#include <doctest/doctest.h>

#include <cmath>
#include <memory>
#include <vector>

#include "runtime/generation.h"
#include "runtime/session.h"
#include "testing/fake_executor.h"

using namespace emm;
using emm::testing::fake_speech_contract;
using emm::testing::FakeExecutor;

namespace {

const std::vector<float> kFeatures(8 * 10, 0.5f);

AudioInput clip() { return {{kFeatures.data(), DType::kFloat32, {8, 10}}, nullptr}; }

struct Fixture {
  Fixture() {
    auto executor = std::make_unique<FakeExecutor>(fake_speech_contract());
    fake = executor.get();
    session = std::make_shared<Session>(std::move(executor));
  }

  void prefill(std::vector<Input> inputs) {
    session->begin_prefill(std::move(inputs));
    while (session->step_prefill()) {
    }
  }

  FakeExecutor* fake;  // owned by the session
  std::shared_ptr<Session> session;
};

void check_refused(Session& session, std::vector<Input> inputs) {
  const int64_t position = session.position();
  try {
    session.begin_prefill(std::move(inputs));
    FAIL("not refused");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::kInput);
  }
  CHECK(session.position() == position);
  CHECK_FALSE(session.is_prefilling());
}

}  // namespace

TEST_CASE("a clip is encoded in place and takes no positions") {
  Fixture f;
  f.session->begin_prefill({clip(), TokenInput{{3, 4, 5}}});
  CHECK(f.session->prefill_total() == 3);
  CHECK(f.session->next_chunk() == Chunk::Kind::kEncodeAudio);
  CHECK(f.session->step_prefill());
  CHECK(f.fake->encoder_inputs == std::vector<const void*>{kFeatures.data()});
  CHECK(f.session->position() == 0);
  CHECK_FALSE(f.session->step_prefill());
  CHECK(f.session->history() == std::vector<int64_t>{3, 4, 5});
}

TEST_CASE("the same clip can be answered again without encoding it again") {
  Fixture f;
  f.prefill({clip(), TokenInput{{3, 4, 5}}});
  Generation first(f.session, {});
  const auto token = first.next();
  f.session->reset();
  f.prefill({TokenInput{{3}}});
  f.prefill({TokenInput{{4, 5}}});
  CHECK(Generation(f.session, {}).next() == token);
  CHECK(f.fake->encoder_inputs.size() == 1);
}

TEST_CASE("a clip stands at the beginning and has tokens after it") {
  Fixture f;
  check_refused(*f.session, {clip()});
  check_refused(*f.session, {TokenInput{{3}}, clip(), TokenInput{{4}}});
  f.prefill({clip(), TokenInput{{3}}});
  check_refused(*f.session, {clip(), TokenInput{{4}}});
}

TEST_CASE("logprobs are those of the logits after a prompt, and of nothing else") {
  Fixture f;
  CHECK_THROWS_AS(f.session->logprobs({0}), Error);
  f.prefill({clip(), TokenInput{{3}}});
  std::vector<int64_t> all(16);
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int64_t>(i);
  double total = 0.0;
  for (const float logprob : f.session->logprobs(all)) total += std::exp(double{logprob});
  CHECK(total == doctest::Approx(1.0));
  // The fake's logits are 10 for one token and 0 for the others.
  const double likeliest = 10.0 - std::log(std::exp(10.0) + 15.0);
  CHECK(f.session->logprobs({4})[0] == doctest::Approx(likeliest));
  CHECK(f.session->logprobs({5})[0] == doctest::Approx(likeliest - 10.0));
  CHECK_THROWS_AS(f.session->logprobs({16}), Error);
  Generation(f.session, {}).next();
  CHECK_THROWS_AS(f.session->logprobs({0}), Error);  // the sampled token comes first
}
