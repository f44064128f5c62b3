#include "runtime/prompt_lookup.h"

#include <algorithm>
#include <utility>

namespace emm {
namespace {

constexpr size_t kLongestMatch = 16;   // longer ones tell nothing more
constexpr size_t kFurthest = 1 << 16;  // tokens that are searched
// What one more token costs a call of the model, as a part of a call of one: what has been measured
// lies between 0.1 and 0.25.
constexpr double kTokenCost = 0.22;
constexpr double kLeastGain = 1.05;
constexpr double kLearning = 1.0 / 8;
// A chance that is too small is taken for this one after a pause, twice as long each time.
constexpr double kLeastTried = 0.4;
constexpr int64_t kLongestPause = 256;

struct Match {
  size_t end = 0;  // behind the same tokens
  size_t length = 0;
};

// The longest earlier occurrence of what `text` ends with, the last of equally long ones.
Match find_match(const std::vector<int64_t>& text) {
  Match best;
  const size_t size = text.size();
  if (size < 3) return best;
  const size_t first = size > kFurthest ? size - kFurthest : 0;
  for (size_t end = size - 1; end >= first + 2; --end) {
    if (text[end - 1] != text[size - 1] || text[end - 2] != text[size - 2]) continue;
    size_t length = 2;
    while (length < kLongestMatch && length < end - first &&
           text[end - 1 - length] == text[size - 1 - length])
      ++length;
    if (length > best.length) best = {end, length};
    if (length == kLongestMatch) break;
  }
  return best;
}

// The number of guesses that gives the most tokens for the time of a call.
int64_t best_length(double chance, int64_t most) {
  int64_t best = 0;
  double best_gain = kLeastGain;
  double expected = 1.0;
  double all_right = 1.0;
  for (int64_t length = 1; length <= most; ++length) {
    all_right *= chance;
    expected += all_right;
    const double gain = expected / (1.0 + kTokenCost * static_cast<double>(length));
    if (gain > best_gain) {
      best = length;
      best_gain = gain;
    }
  }
  return best;
}

}  // namespace

std::vector<int64_t> PromptLookup::guess(const std::vector<int64_t>& text, int64_t most) {
  used_ = nullptr;
  most = std::min(most, max_tokens_);
  const Match match = find_match(text);
  if (most < 1 || match.length == 0) return {};
  Chance* chance = chances_.data();
  for (Chance& other : chances_) {
    if (other.least_match <= match.length) chance = &other;
  }
  if (chance->pause > 0) {
    --chance->pause;
    return {};
  }
  const auto length = static_cast<size_t>(best_length(chance->now, most));
  // Where the earlier text ends, it is taken to go on as it began: a period that repeats.
  std::vector<int64_t> guessed;
  const size_t period = text.size() - match.end;
  for (size_t i = 0; i < length; ++i) {
    const int64_t token = text[match.end + i % period];
    if (token < 0) break;  // media
    guessed.push_back(token);
  }
  if (!guessed.empty()) used_ = chance;
  return guessed;
}

void PromptLookup::learn(int64_t num_right, bool was_wrong) {
  if (used_ == nullptr) return;
  Chance& chance = *std::exchange(used_, nullptr);
  for (int64_t i = 0; i < num_right; ++i) chance.now += kLearning * (1.0 - chance.now);
  if (num_right > 0) chance.next_pause = kShortestPause;
  if (!was_wrong) return;
  chance.now -= kLearning * chance.now;
  if (best_length(chance.now, max_tokens_) > 0) return;
  chance.now = kLeastTried;
  chance.pause = chance.next_pause;
  chance.next_pause = std::min(2 * chance.next_pause, kLongestPause);
}

}  // namespace emm
