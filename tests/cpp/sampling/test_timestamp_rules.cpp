// Whisper's grammar of timestamps, on a vocabulary of five text tokens, an end and five times.
#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "sampling/sampler.h"
#include "sampling/timestamp_rules.h"

using namespace emm;

namespace {

constexpr int64_t kVocab = 11;
constexpr TimestampRules kRules{6, 5, 2};

// Texts are likely, so that no time is forced, unless a test says otherwise.
std::vector<float> likely_texts() {
  std::vector<float> row(kVocab, 0.0f);
  for (size_t i = 0; i < 6; ++i) row[i] = 5.0f;
  return row;
}

std::vector<int> allowed(const std::vector<int64_t>& answer, std::vector<float> row) {
  apply_timestamp_rules(row.data(), kVocab, answer.data(), static_cast<int64_t>(answer.size()),
                        kRules);
  std::vector<int> tokens;
  for (int i = 0; i < kVocab; ++i) {
    if (std::isfinite(row[static_cast<size_t>(i)])) tokens.push_back(i);
  }
  return tokens;
}

using Tokens = std::vector<int>;

}  // namespace

TEST_CASE("an answer begins with an early time") {
  CHECK(allowed({}, likely_texts()) == Tokens{6, 7, 8});
}

TEST_CASE("a time that begins a text is followed by a text or the end") {
  CHECK(allowed({6}, likely_texts()) == Tokens{0, 1, 2, 3, 4, 5});
  CHECK(allowed({6, 1, 8, 8}, likely_texts()) == Tokens{0, 1, 2, 3, 4, 5});
}

TEST_CASE("a time that ends a text is followed by the end or the next text's time") {
  CHECK(allowed({6, 1, 8}, likely_texts()) == Tokens{5, 8, 9, 10});
}

TEST_CASE("times do not fall, and a text does not end where it began") {
  CHECK(allowed({8, 1}, likely_texts()) == Tokens{0, 1, 2, 3, 4, 5, 9, 10});
  CHECK(allowed({10, 1}, likely_texts()) == Tokens{0, 1, 2, 3, 4, 5});
}

TEST_CASE("a time comes where times together are likelier than each text") {
  std::vector<float> row = likely_texts();
  for (size_t i = 6; i < kVocab; ++i) row[i] = 4.0f;  // 4 + ln 4 > 5
  CHECK(allowed({6, 1}, row) == Tokens{7, 8, 9, 10});
}

TEST_CASE("the sampler applies the rules to its own answer, and other bans to its first token") {
  SamplingOptions options;
  options.timestamps = kRules;
  options.begin_suppress_tokens = {6};
  options.num_logprobs = 0;
  options.has_edited_logprobs = true;
  Sampler sampler(options);
  const std::vector<float> row = likely_texts();
  std::vector<int64_t> history = {7, 8, 9};  // a prompt, whose times do not count
  history.push_back(sampler.sample(row.data(), kVocab, history));
  CHECK(history.back() == 7);
  CHECK(sampler.logprob() == doctest::Approx(std::log(0.5)));  // 7 or 8, equally likely
  history.push_back(sampler.sample(row.data(), kVocab, history));
  CHECK(history.back() == 0);
  CHECK(sampler.logprob() == doctest::Approx(std::log(1.0 / 6.0)));
}
