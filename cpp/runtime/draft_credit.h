// What a draft model may lose in all the answers of a load, in calls of one token of the model that
// answers. It pays for prompts that are read before anything is known of the guesses: a draft model
// that is of no use has soon spent it, and one that is has more of it. In any thread.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace emm {

class DraftCredit {
 public:
  explicit DraftCredit(double calls = kFirst) : calls_(calls) {}

  double now() const { return calls_; }
  // What guesses have gained, or lost, over so many tokens.
  void add(double gained, int64_t num_tokens) {
    gained += kPerToken * static_cast<double>(num_tokens);
    double before = calls_;
    while (!calls_.compare_exchange_weak(before, std::clamp(before + gained, 0.0, kMost))) {
    }
  }

  // How often guesses behind a whole text have been right lately; where nothing
  // is known, as often as those of a draft model that fits.
  double chance() const { return std::max<double>(chance_, kLeastChance); }
  void learn(bool was_right) {
    chance_ = chance_ + kLearning * ((was_right ? 1.0 : 0.0) - chance_);
  }

  // What reading a token of a prompt takes, in calls of the draft model; a guess until one was
  // measured.
  double prompt_token() const { return prompt_token_; }
  void measure_prompt_token(double calls) {
    prompt_token_ = std::clamp(calls, kLeastPromptToken, 1.0);
  }

 private:
  static constexpr double kFirst = 64;
  static constexpr double kMost = 256;
  static constexpr double kPerToken = 0.004;  // other texts may suit it better
  static constexpr double kLeastPromptToken = 0.01;

  static constexpr double kLeastChance = 0.85;
  static constexpr double kLearning = 1.0 / 32;

  std::atomic<double> calls_;
  std::atomic<double> chance_{kLeastChance};
  std::atomic<double> prompt_token_{0.2};  // those are read many at a time
};

}  // namespace emm
