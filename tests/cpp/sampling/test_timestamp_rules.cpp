// Whisper's grammar of timestamps, on a vocabulary of five text tokens, an end and five times.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>
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

namespace {

// The rules once more, token by token, as Whisper's decoding describes them.
bool may_follow(int token, const std::vector<int64_t>& answer, int num_initial) {
  const auto is_time = [](int64_t id) { return id >= kRules.first; };
  if (answer.empty()) return is_time(token) && token < kRules.first + num_initial;
  const bool after_time = is_time(answer.back());
  const bool after_two = after_time && (answer.size() == 1 || is_time(answer[answer.size() - 2]));
  if (after_two) return !is_time(token);
  if (after_time && token < kRules.end) return false;
  if (!is_time(token)) return true;
  return std::all_of(answer.begin(), answer.end(), [&](int64_t id) {
    return !is_time(id) || token > id || (after_time && token == id && id == answer.back());
  });
}

}  // namespace

TEST_CASE("random answers are continued as the rules say, token by token") {
  std::mt19937 random(5);
  std::normal_distribution<float> normal(0.0f, 2.0f);
  int num_forced = 0;
  for (int round = 0; round < 300; ++round) {
    std::vector<int64_t> answer;
    while (answer.size() < 8) {
      std::vector<float> row(kVocab);
      for (float& value : row) value = normal(random);
      Tokens expected;
      double times = 0.0;
      float likeliest_text = -INFINITY;
      for (int token = 0; token < kVocab; ++token) {
        if (!may_follow(token, answer, kRules.max_initial + 1)) continue;
        expected.push_back(token);
        const float value = row[static_cast<size_t>(token)];
        if (token >= kRules.first)
          times += std::exp(double{value});
        else
          likeliest_text = std::max(likeliest_text, value);
      }
      if (times > std::exp(double{likeliest_text})) {
        const auto end = std::remove_if(expected.begin(), expected.end(),
                                        [](int token) { return token < kRules.first; });
        num_forced += end != expected.end();
        expected.erase(end, expected.end());
      }
      CHECK(allowed(answer, row) == expected);
      if (expected.empty()) break;
      answer.push_back(expected[random() % expected.size()]);
    }
  }
  CHECK(num_forced > 50);
}
