#include "runtime/call_costs.h"

#include <algorithm>

namespace emm {
namespace {

// Somewhat more than SmolLM2-135M takes on AVX-512, with float32 weights and with 4-bit ones.
double estimate(int64_t num_tokens) { return 1.1 + 0.1 * static_cast<double>(num_tokens); }

// A call that was interrupted says little.
double believable(double measured, double known) {
  return std::clamp(measured, 0.5 * known, 2.0 * known);
}

}  // namespace

// That of the nearest number on both sides of which something is known.
double CallCosts::factor(int64_t num_tokens) const {
  const auto at = std::min(static_cast<size_t>(num_tokens), kMostTokens);
  size_t below = at;
  size_t above = at;
  while (below > 1 && factors_[below] == 0.0f) --below;
  while (above < kMostTokens && factors_[above] == 0.0f) ++above;
  const double low = factors_[below];
  const double high = factors_[above];
  if (low == 0.0) return high == 0.0 ? 1.0 : high;
  if (high == 0.0 || above == below) return low;
  return low + (high - low) * static_cast<double>(at - below) / static_cast<double>(above - below);
}

double CallCosts::of(int64_t num_tokens) const {
  if (num_tokens <= 1) return 1.0;
  return std::max(1.0, estimate(num_tokens) * factor(num_tokens));
}

void CallCosts::fix() {
  is_fixed_ = true;
  one_ns_ = 0.0f;
  for (std::atomic<float>& entry : factors_) entry = 0.0f;
}

void CallCosts::add(int64_t num_tokens, int64_t ns) {
  if (is_fixed_ || num_tokens < 1 || ns <= 0) return;
  const auto taken = static_cast<double>(ns);
  const double one = one_ns_;
  if (num_tokens == 1) {
    one_ns_ = static_cast<float>(one == 0.0 ? taken : one + (believable(taken, one) - one) / 8);
    return;
  }
  if (one == 0.0 || num_tokens > static_cast<int64_t>(kMostTokens)) return;
  std::atomic<float>& entry = factors_[static_cast<size_t>(num_tokens)];
  const double known = factor(num_tokens);
  const double found = believable(taken / one / estimate(num_tokens), known);
  entry = static_cast<float>(entry == 0.0f ? found : known + (found - known) / 4);
}

}  // namespace emm
