// Guesses how an answer goes on: as it did after the same tokens before. Texts that quote, rewrite
// or summarise repeat themselves, and several tokens are read in little more time than one.
//
// How many are guessed follows from how often guesses have been right and from what a call of so
// many tokens takes. A guess that is not read is compared with the token that comes: that costs
// nothing, and tells whether the next is worth it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "runtime/call_costs.h"

namespace emm {

// What an answer may lose by wrong guesses for each of its tokens, in calls of one token.
constexpr double kMayLosePerToken = 0.015;
// What a lookup may lose beyond it where guesses that were not read would have been right: so much
// for each in a row, and so much at most.
constexpr double kTrustPerToken = 0.1;
constexpr double kMostTrust = 0.5;

class PromptLookup {
 public:
  // Guesses at most `max_tokens` at a time, for a model whose calls take so much.
  explicit PromptLookup(int64_t max_tokens,
                        std::shared_ptr<const CallCosts> costs = std::make_shared<CallCosts>());

  // What may follow `text`, of `most` tokens at most; nothing where that is not worth reading, or
  // where reading it for nothing would lose more than `may_lose`, in calls of one token.
  std::vector<int64_t> guess(const std::vector<int64_t>& text, int64_t most, double may_lose);
  // So many of the last guess were right, the next one of them was wrong.
  void learn(int64_t num_right, bool was_wrong);

 private:
  // The chance that a guessed token is right, by how many tokens before it are the same.
  struct Chance {
    size_t least_match = 0;
    double now = 0;
  };
  // What would have been guessed.
  struct Unread {
    Chance* chance = nullptr;
    int64_t token = 0;
    size_t place = 0;  // in the text
  };
  void compare_unread(const std::vector<int64_t>& text);
  int64_t best_length(double chance, int64_t most) const;
  double least_tried() const;

  std::array<Chance, 3> chances_;
  Chance* used_ = nullptr;  // for the last guess
  Unread unread_;
  double trust_ = 0;
  int64_t max_tokens_;
  std::shared_ptr<const CallCosts> costs_;
};

}  // namespace emm
