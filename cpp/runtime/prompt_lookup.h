// Guesses how an answer goes on: as it did after the same tokens before. Texts that quote, rewrite
// or summarise repeat themselves, and several tokens are read in little more time than one.
//
// How many are guessed follows from how often guesses have been right and from what a call of so
// many tokens takes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "runtime/call_costs.h"

namespace emm {

// What an answer may lose by wrong guesses, in calls of one token: so much, and a little more for
// each token.
constexpr double kMayLose = 1.4;
constexpr double kMayLosePerToken = 0.005;

class PromptLookup {
 public:
  // Guesses at most `max_tokens` at a time, for a model whose calls take so much.
  explicit PromptLookup(int64_t max_tokens,
                        std::shared_ptr<const CallCosts> costs = std::make_shared<CallCosts>());

  // What may follow `text`, of `most` tokens at most; nothing where that is not worth reading, or
  // where reading it for nothing would lose more than `may_lose`, in calls of one token.
  std::vector<int64_t> guess(const std::vector<int64_t>& text, int64_t most,
                             double may_lose = kMayLose);
  // So many of the last guess were right, the next one of them was wrong.
  void learn(int64_t num_right, bool was_wrong);

 private:
  // The chance that a guessed token is right, by how many tokens before it are the same.
  struct Chance {
    size_t least_match = 0;
    double now = 0;
    int64_t pause = 0;  // occasions that are let pass
    int64_t next_pause = 0;
  };
  std::array<Chance, 3> chances_;
  Chance* used_ = nullptr;  // for the last guess
  int64_t best_length(double chance, int64_t most) const;
  double least_tried() const;

  int64_t max_tokens_;
  std::shared_ptr<const CallCosts> costs_;
};

}  // namespace emm
