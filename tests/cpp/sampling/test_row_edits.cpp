// Changes to single logits, on rows small enough to be read.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <set>
#include <vector>

#include "sampling/row_edits.h"

using namespace emm;

namespace {

constexpr float kForbidden = -std::numeric_limits<float>::infinity();

std::set<int32_t> banned(const std::vector<float>& row) {
  std::set<int32_t> tokens;
  for (size_t i = 0; i < row.size(); ++i) {
    if (row[i] == kForbidden) tokens.insert(static_cast<int32_t>(i));
  }
  return tokens;
}

std::set<int32_t> banned_ngrams(const std::vector<int64_t>& history, int64_t size) {
  std::vector<float> row(10, 0.0f);
  ban_repeated_ngrams(row.data(), 10, history, size);
  return banned(row);
}

}  // namespace

TEST_CASE("penalties tell the prompt from the answer") {
  TokenCounts counts;
  counts.resize(6);
  counts.update({1, 2, -1, 99, 2}, 0);  // a media position and an id without a logit
  counts.update({1, 2, -1, 99, 2, 3, 2, 3}, 3);
  CHECK(counts.in_answer(2) == 1);
  CHECK(counts.in_answer(3) == 2);
  std::vector<float> row = {4.0f, 4.0f, -4.0f, 4.0f, 4.0f, kForbidden};
  penalise(row.data(), counts, 2.0f, 0.5f, 0.25f);
  CHECK(row == std::vector<float>{4.0f, 2.0f, -8.75f, 0.75f, 4.0f, kForbidden});
}

TEST_CASE("tokens that are counted step by step are those counted at once") {
  std::vector<int64_t> history = {4, 1};
  TokenCounts stepwise, whole;
  stepwise.resize(6);
  whole.resize(6);
  stepwise.update(history, 0);
  for (const int64_t token : {1, 5, 1}) {
    history.push_back(token);
    stepwise.update(history, static_cast<int64_t>(history.size()) - 2);
  }
  whole.update(history, 3);
  for (int32_t token = 0; token < 6; ++token)
    CHECK(stepwise.in_answer(token) == whole.in_answer(token));
  CHECK(stepwise.seen() == whole.seen());
}

TEST_CASE("an n-gram of the context is not completed again") {
  CHECK(banned_ngrams({1, 2, 3, 1, 2}, 3) == std::set<int32_t>{3});
  CHECK(banned_ngrams({1, 2, 3, 1, 2, 4, 1, 2}, 3) == std::set<int32_t>{3, 4});
  CHECK(banned_ngrams({1, 2, 3, 1, 2}, 2) == std::set<int32_t>{3});
  CHECK(banned_ngrams({1, 2, 3}, 1) == std::set<int32_t>{1, 2, 3});
  CHECK(banned_ngrams({1, 2, 3}, 3).empty());
  CHECK(banned_ngrams({1, 2}, 4).empty());
  CHECK(banned_ngrams({}, 1).empty());
  CHECK(banned_ngrams({}, 3).empty());
  CHECK(banned_ngrams({5, -1, 5, -1}, 2).size() == 1);  // 5, but no media position
  CHECK(banned_ngrams({5, 99, 5}, 2).empty());
}

TEST_CASE("banning leaves out ids without a logit") {
  std::vector<float> row(3, 1.0f);
  ban(row.data(), 3, {1, 3, -1, 1000000});
  CHECK(banned(row) == std::set<int32_t>{1});
}

TEST_CASE("a mask forbids the tokens whose bit is 0 and touches nothing else") {
  std::vector<float> row(70, 1.0f);
  const std::vector<uint32_t> allowed = {0xFFFFFFFFu, 0x00000005u, 0x80000020u};
  apply_mask(row.data(), 70, allowed.data());
  for (size_t i = 0; i < row.size(); ++i) {
    const bool stays = i < 32 || i == 32 || i == 34 || i == 69;
    CHECK(row[i] == (stays ? 1.0f : kForbidden));
  }
}
