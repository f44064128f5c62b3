// Conversations that another session has saved, as plain values.
#include <doctest/doctest.h>

#include <functional>
#include <string>
#include <vector>

#include "testing/fake_session.h"

using namespace emm;
using emm::testing::fake_contract;
using emm::testing::FakeSession;

namespace {

FakeSession session_with(CacheLimits limits, PositionStyle style = PositionStyle::kStart) {
  Contract contract = fake_contract(/*capacity=*/64, /*max_chunk=*/4);
  contract.cache = limits;
  contract.position_style = style;
  return FakeSession(std::move(contract));
}

const std::vector<CacheLimits> kLimits = {{},
                                          {/*ring_rows=*/16, /*ring_window=*/8, false, false},
                                          {0, 0, true, false},
                                          {16, 8, true, false}};

// What a file would hold.
struct Values {
  SavedConversation saved;
  std::vector<float> logits;
  std::vector<uint8_t> state;

  explicit Values(const Session& session) {
    const auto snapshot = session.save();
    logits = snapshot->logits;
    for (const ByteSpan& span : snapshot->state->spans())
      state.insert(state.end(), span.data, span.data + span.size);
    saved = {snapshot->position.used(),
             snapshot->position.written(),
             snapshot->history,
             snapshot->pending_tokens,
             logits.empty() ? nullptr : logits.data(),
             state.data(),
             state.size()};
  }
};

}  // namespace

TEST_CASE("another session goes on with a saved conversation, whatever the state is made of") {
  for (const CacheLimits limits : kLimits) {
    for (const int64_t num_tokens : {3, 20}) {
      for (const int64_t num_answered : {0, 2}) {
        FakeSession f = session_with(limits);
        f.prefill({TokenInput{std::vector<int64_t>(static_cast<size_t>(num_tokens), 5)}});
        f.generate(num_answered);
        const Values values(*f.session);
        FakeSession other = session_with(limits);
        other.prefill({TokenInput{{9, 9, 9}}});
        other.session->load(values.saved);
        CHECK(other.session->history() == f.session->history());
        CHECK(other.session->pending_tokens() == f.session->pending_tokens());
        CHECK(other.generate(6) == f.generate(6));
      }
    }
  }
}

TEST_CASE("what was overwritten before a rewind stays so in another session") {
  FakeSession f = session_with(kLimits[1]);
  f.prefill({TokenInput{std::vector<int64_t>(20, 5)}});
  f.session->rewind(14);
  const Values values(*f.session);
  CHECK(values.saved.written == 20);
  FakeSession other = session_with(kLimits[1]);
  other.session->load(values.saved);
  other.session->rewind(12);
  CHECK_THROWS_AS(other.session->rewind(11), Error);
}

TEST_CASE("values that no session can have had are refused and change nothing") {
  FakeSession f = session_with(kLimits[1]);
  f.prefill({TokenInput{std::vector<int64_t>(20, 5)}});
  f.generate(1);
  FakeSession other = session_with(kLimits[1]);
  other.prefill({TokenInput{{9, 8, 7}}});
  const auto refuses = [&](const std::string& message,
                           const std::function<void(SavedConversation&)>& change) {
    Values values(*f.session);
    change(values.saved);
    try {
      other.session->load(values.saved);
      FAIL("loaded");
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::kInput);
      CHECK(std::string(error.what()).find(message) != std::string::npos);
    }
    CHECK(other.session->history() == std::vector<int64_t>{9, 8, 7});
  };
  refuses("expected 0 <= position <= written", [](auto& saved) { saved.position = -1; });
  refuses("expected 0 <= position <= written", [](auto& saved) { saved.written = 19; });
  refuses("room for 64", [](auto& saved) { saved.written = 65; });
  refuses("room for 64", [](auto& saved) { saved.written = INT64_MAX / 4; });
  refuses("a token for each of 20", [](auto& saved) { saved.history.pop_back(); });
  refuses("token ids below 16", [](auto& saved) { saved.history[3] = 16; });
  refuses("token ids below 16", [](auto& saved) { saved.history[3] = -2; });
  refuses("token ids below 16", [](auto& saved) { saved.pending_tokens[0] = kMediaPosition; });
  refuses("at most 4 tokens", [](auto& saved) { saved.pending_tokens.assign(5, 2); });
  refuses("have been overwritten", [](auto& saved) { saved.written = 40; });
  refuses("of another size", [](auto& saved) { saved.state_bytes -= sizeof(int64_t); });
  FakeSession fresh = session_with(kLimits[1]);
  fresh.prefill({TokenInput{{9, 8, 7}}});
  CHECK(other.generate(6) == fresh.generate(6));
}

TEST_CASE("without a cache the history is read again, so media cannot be in it") {
  FakeSession f = session_with({}, PositionStyle::kNone);
  f.prefill({TokenInput{{5, 6}}});
  Values values(*f.session);
  values.saved.history[0] = kMediaPosition;
  FakeSession other = session_with({}, PositionStyle::kNone);
  CHECK_THROWS_AS(other.session->load(values.saved), Error);
}
