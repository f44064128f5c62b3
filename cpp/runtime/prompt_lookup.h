// Guesses how an answer goes on: as it did after the same tokens before. Texts that quote, rewrite
// or summarise repeat themselves, and several tokens are read in little more time than one.
//
// How many are guessed follows from how often guesses have been right, and from nothing that is
// measured: the same request makes the same calls of the model each time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace emm {

// What a call of so many tokens costs in calls of one.
double call_cost(int64_t num_tokens);

class PromptLookup {
 public:
  // Guesses at most `max_tokens` at a time.
  explicit PromptLookup(int64_t max_tokens);

  // What may follow `text`, of `most` tokens at most; nothing where that is not worth reading.
  std::vector<int64_t> guess(const std::vector<int64_t>& text, int64_t most);
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
  int64_t max_tokens_;
};

}  // namespace emm
