// Tokens that are read and not generated: what each was given before it, in as few calls as may be.
#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "base/error.h"
#include "testing/fake_session.h"

using namespace emm;
using emm::testing::fake_contract;
using emm::testing::FakeSession;

namespace {

using Ids = std::vector<int64_t>;

Contract contract_with(bool all_logits) {
  Contract contract = fake_contract(/*capacity=*/32, /*max_chunk=*/4);
  contract.all_logits = all_logits;
  return contract;
}

std::vector<bool> likeliest(const std::vector<ReadToken>& tokens) {
  std::vector<bool> found;
  for (const ReadToken& token : tokens) found.push_back(token.is_likeliest);
  return found;
}

}  // namespace

// The fake counts up: 6 comes after 5, and after 11 comes 2.
TEST_CASE("tokens are read in calls as long as the model takes them") {
  for (const bool all_logits : {true, false}) {
    FakeSession f(contract_with(all_logits));
    const Ids ids = {5, 6, 7, 9, 10, 11, 2};
    std::vector<bool> found;
    Ids rest = ids;
    int num_calls = 0;
    while (!rest.empty()) {
      const std::vector<ReadToken> tokens = f.session->read_scored(rest);
      CHECK(std::isnan(tokens[0].logprob) == (num_calls == 0));
      for (const bool is_likeliest : likeliest(tokens)) found.push_back(is_likeliest);
      rest.erase(rest.begin(), rest.begin() + static_cast<std::ptrdiff_t>(tokens.size()));
      ++num_calls;
    }
    CHECK(num_calls == (all_logits ? 2 : 7));
    CHECK(found == std::vector<bool>{false, true, true, false, true, true, true});
    CHECK(f.session->history() == ids);
    CHECK(f.session->logprobs({3})[0] > f.session->logprobs({4})[0]);
  }
}

TEST_CASE("what was generated last is read first") {
  FakeSession f(contract_with(true));
  f.prefill({TokenInput{{3}}});
  CHECK(f.generate(2) == std::vector<int32_t>{4, 5});
  CHECK(f.session->history() == Ids{3, 4});
  CHECK(likeliest(f.session->read_scored({6, 8})) == std::vector<bool>{true, false});
  CHECK(f.session->history() == Ids{3, 4, 5, 6, 8});
  CHECK(f.session->pending_tokens().empty());
}

TEST_CASE("scores add up to what logprobs() says of the same tokens") {
  FakeSession f(contract_with(true));
  f.prefill({TokenInput{{3}}});
  const float first = f.session->logprobs({7})[0];
  const std::vector<ReadToken> tokens = f.session->read_scored({7, 9});
  CHECK(tokens[0].logprob == first);
  f.session->rewind(2);
  f.session->rewind(1);
  f.prefill({TokenInput{{7}}});
  CHECK(tokens[1].logprob == f.session->logprobs({9})[0]);
}

TEST_CASE("without room for all of them nothing is read") {
  FakeSession f(contract_with(true));
  f.prefill({TokenInput{Ids(30, 3)}});
  CHECK_THROWS_AS(f.session->read_scored({4, 5, 6}), Error);
  CHECK_THROWS_AS(f.session->read_scored({4, 16}), Error);
  CHECK(f.session->position() == 30);
  CHECK(f.session->read_scored({}).empty());
  CHECK(f.session->read_scored({4, 5}).size() == 2);
}

TEST_CASE("nothing is read once the request was cancelled") {
  FakeSession f(contract_with(true));
  f.prefill({TokenInput{{3}}});
  f.session->cancel();
  CHECK(f.session->read_scored({4, 5}).empty());
  CHECK(f.session->history() == Ids{3});
  f.session->begin_request();
  CHECK(f.session->read_scored({4, 5}).size() == 2);
}
