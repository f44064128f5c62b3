// What a call of a model for several tokens takes, in calls for one: an estimate, then what was
// measured. Only how much is guessed follows from it, never what is answered: where logits depend
// on how many tokens a call reads, the estimate holds.
//
// One for all sessions of a model, in any thread.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace emm {

class CallCosts {
 public:
  double of(int64_t num_tokens) const;
  // A call of so many tokens has taken so long.
  void add(int64_t num_tokens, int64_t ns);
  // Of a call for one token; 0 where none has been made.
  double one_ns() const { return one_ns_; }
  // The estimate holds from here on, whatever is measured.
  void fix();

 private:
  static constexpr size_t kMostTokens = 32;  // longer calls cost as these in proportion

  double factor(int64_t num_tokens) const;

  // By number of tokens: what was measured over what was estimated; 0: nothing yet.
  std::array<std::atomic<float>, kMostTokens + 1> factors_{};
  std::atomic<float> one_ns_{0};
  std::atomic<bool> is_fixed_{false};
};

}  // namespace emm
