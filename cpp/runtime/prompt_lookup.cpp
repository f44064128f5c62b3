#include "runtime/prompt_lookup.h"

#include <algorithm>
#include <utility>

#include "runtime/guess_length.h"

namespace emm {

namespace {

constexpr size_t kLongestMatch = 16;   // longer ones tell nothing more
constexpr size_t kFurthest = 1 << 16;  // tokens that are searched
constexpr size_t kShortestMatch = 3;   // two tokens are the same too often for no reason
constexpr double kLearning = 1.0 / 8;

struct Match {
  size_t end = 0;  // behind the same tokens
  size_t length = 0;
};

// The longest earlier occurrence of what `text` ends with, the last of equally long ones.
Match find_match(const std::vector<int64_t>& text) {
  Match best;
  const size_t size = text.size();
  if (size <= kShortestMatch) return best;
  const size_t first = size > kFurthest ? size - kFurthest : 0;
  for (size_t end = size - 1; end >= first + kShortestMatch; --end) {
    if (text[end - 1] != text[size - 1] || text[end - 2] != text[size - 2]) continue;
    size_t length = 2;
    while (length < kLongestMatch && length < end - first &&
           text[end - 1 - length] == text[size - 1 - length])
      ++length;
    if (length >= kShortestMatch && length > best.length) best = {end, length};
    if (length == kLongestMatch) break;
  }
  return best;
}

}  // namespace

int64_t PromptLookup::best_length(double chance, int64_t most) const {
  return best_guess_length({}, chance, 0.0, most, kLeastGuessGain,
                           [this](int64_t count) { return costs_->of(count); })
      .length;
}

double PromptLookup::least_tried() const {
  return least_guess_chance(0.65,
                            [this](double chance) { return best_length(chance, max_tokens_) > 0; });
}

PromptLookup::PromptLookup(int64_t max_tokens, std::shared_ptr<const CallCosts> costs)
    : max_tokens_(max_tokens), costs_(std::move(costs)) {
  const double least = least_tried();
  chances_ = {{{kShortestMatch, least}, {5, std::max(least, 0.75)}, {9, std::max(least, 0.9)}}};
}

void PromptLookup::compare_unread(const std::vector<int64_t>& text) {
  const Unread unread = std::exchange(unread_, {});
  if (unread.chance == nullptr || text.size() != unread.place + 1) return;
  const bool is_right = text.back() == unread.token;
  unread.chance->now += kLearning * ((is_right ? 1.0 : 0.0) - unread.chance->now);
  trust_ = is_right ? std::min(kMostTrust, trust_ + kTrustPerToken) : 0.0;
}

std::vector<int64_t> PromptLookup::guess(const std::vector<int64_t>& text, int64_t most,
                                         double may_lose) {
  used_ = nullptr;
  compare_unread(text);
  most = std::min(most, max_tokens_);
  if (most < 1) return {};
  const Match match = find_match(text);
  if (match.length == 0) return {};
  Chance* chance = chances_.data();
  for (Chance& other : chances_) {
    if (other.least_match <= match.length) chance = &other;
  }
  while (most > 0 && costs_->of(most + 1) - 1.0 > may_lose + trust_) --most;
  const auto length = static_cast<size_t>(best_length(chance->now, most));
  // Where the earlier text ends, it is taken to go on as it began: a period that repeats.
  std::vector<int64_t> guessed;
  const size_t period = text.size() - match.end;
  for (size_t i = 0; i < length; ++i) {
    const int64_t token = text[match.end + i % period];
    if (token < 0) break;  // media
    guessed.push_back(token);
  }
  if (!guessed.empty())
    used_ = chance;
  else if (text[match.end] >= 0)
    unread_ = {chance, text[match.end], text.size()};
  return guessed;
}

void PromptLookup::learn(int64_t num_right, bool was_wrong) {
  if (used_ == nullptr) return;
  Chance& chance = *std::exchange(used_, nullptr);
  for (int64_t i = 0; i < num_right; ++i) chance.now += kLearning * (1.0 - chance.now);
  if (!was_wrong) return;
  chance.now -= kLearning * chance.now;
  trust_ = 0;
}

}  // namespace emm
