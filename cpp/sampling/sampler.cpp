#include "sampling/sampler.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <functional>
#include <string>

#include "base/error.h"

namespace emm {
namespace {

constexpr float kLeastWeight = 0x1p-126f;  // smaller ones are 0

bool has_penalty(const SamplingOptions& options) {
  return options.repetition_penalty != 1.0f || options.frequency_penalty != 0.0f ||
         options.presence_penalty != 0.0f;
}

bool edits_row(const SamplingOptions& options) {
  return has_penalty(options) || !options.logit_bias.empty() || !options.suppress_tokens.empty() ||
         !options.begin_suppress_tokens.empty() || options.timestamps.first >= 0 ||
         options.no_repeat_ngram_size > 0;
}

// Appends the values that are at least `least`, in the order of their indices. Only blocks whose
// maximum reaches `least_maximum` are looked at.
void gather(const std::vector<float>& maxima, float least_maximum, const float* values,
            int64_t size, float least, std::vector<Candidate>& found) {
  for (int64_t begin = 0; begin < size; begin += kRowBlock) {
    if (maxima[static_cast<size_t>(begin / kRowBlock)] < least_maximum) continue;
    const int64_t end = std::min(begin + kRowBlock, size);
    for (int64_t i = begin; i < end; ++i) {
      if (values[i] >= least) found.push_back({values[i], static_cast<int32_t>(i)});
    }
  }
}

}  // namespace

void check_token_id(const char* field, int64_t token, int64_t vocab_size) {
  if (token >= 0 && token < vocab_size) return;
  throw Error(ErrorCode::kInput, std::string(field) + ": expected token ids in 0.." +
                                     std::to_string(vocab_size - 1) + ", got " +
                                     std::to_string(token));
}

void Sampler::prepare(int64_t vocab_size) {
  if (vocab_size == vocab_size_) return;
  for (const auto& entry : options_.logit_bias)
    check_token_id("logit_bias", entry.first, vocab_size);
  for (const int32_t token : options_.suppress_tokens)
    check_token_id("suppress_tokens", token, vocab_size);
  for (const int32_t token : options_.forced_tokens)
    check_token_id("forced_tokens", token, vocab_size);
  const auto size = static_cast<size_t>(vocab_size);
  const auto blocks = static_cast<size_t>(num_row_blocks(vocab_size));
  if (has_penalty(options_)) counts_.resize(vocab_size);
  if (options_.temperature > 0.0f || options_.num_logprobs >= 0) {
    maxima_.resize(blocks);
    weights_.resize(size);
    sums_.resize(blocks);
    sorted_maxima_.reserve(blocks);
    candidates_.reserve(size);
  }
  if (options_.typical_p < 1.0f) distances_.reserve(size);
  if (options_.num_logprobs > 0) top_logprobs_.reserve(size);
  vocab_size_ = vocab_size;
}

int32_t Sampler::sample(const float* logits, int64_t vocab_size,
                        const std::vector<int64_t>& history, const SampleHooks& hooks) {
  prepare(vocab_size);
  int32_t token = 0;
  const float* row = logits;
  if (has_forced()) {
    token = options_.forced_tokens[num_sampled_];
  } else {
    row = edited(logits, history, hooks);
    token = options_.temperature == 0.0f ? likeliest(row) : draw(row);
  }
  if (options_.num_logprobs >= 0) note_logprobs(options_.has_edited_logprobs ? row : logits, token);
  ++num_sampled_;
  return token;
}

void Sampler::pass() {
  if (options_.temperature > 0.0f) next_uniform();
  ++num_sampled_;
}

void Sampler::follow(const Sampler& other) {
  state_ = other.state_;
  num_sampled_ = other.num_sampled_;
  if (has_penalty(options_) && vocab_size_ >= 0) counts_.resize(vocab_size_);  // counts anew
}

double Sampler::rank(const float* logits, int64_t vocab_size, const std::vector<int64_t>& history,
                     size_t num_tokens) {
  prepare(vocab_size);
  num_sampled_ = num_tokens;
  const float* row = edited(logits, history, {});
  note_logprobs(row, likeliest(row));
  return row == logits ? 0.0 : log_sum_exp(row, vocab_size) - log_sum_exp(logits, vocab_size);
}

void Sampler::distribution(const float* logits, int64_t vocab_size,
                           const std::vector<int64_t>& history, const SampleHooks& hooks,
                           double* probabilities) {
  prepare(vocab_size);
  std::fill_n(probabilities, vocab_size, 0.0);
  if (has_forced()) {
    probabilities[options_.forced_tokens[num_sampled_]] = 1.0;
    return;
  }
  const float* row = edited(logits, history, hooks);
  if (options_.temperature == 0.0f) {
    probabilities[likeliest(row)] = 1.0;
    return;
  }
  filter(row);
  const double total = sum_of_values(candidates_);
  for (const Candidate& candidate : candidates_)
    probabilities[candidate.token] = static_cast<double>(candidate.value) / total;
}

// The logits after everything that changes single ones; a copy only where something may.
const float* Sampler::edited(const float* logits, const std::vector<int64_t>& history,
                             const SampleHooks& hooks) {
  const bool is_too_short = static_cast<int64_t>(num_sampled_) < options_.min_new_tokens;
  if (!edits_row(options_) && !is_too_short && !hooks.edit && hooks.allowed == nullptr)
    return logits;
  row_.assign(logits, logits + vocab_size_);
  float* row = row_.data();
  add_bias(row, options_.logit_bias);
  if (has_penalty(options_)) {
    counts_.update(history, static_cast<int64_t>(num_sampled_));
    penalise(row, counts_, options_.repetition_penalty, options_.frequency_penalty,
             options_.presence_penalty);
  }
  if (options_.no_repeat_ngram_size > 0)
    ban_repeated_ngrams(row, vocab_size_, history, options_.no_repeat_ngram_size);
  if (is_too_short) ban(row, vocab_size_, options_.end_tokens);
  ban(row, vocab_size_, options_.suppress_tokens);
  if (num_sampled_ == 0) ban(row, vocab_size_, options_.begin_suppress_tokens);
  if (options_.timestamps.first >= 0) {
    const auto num_tokens = std::min(num_sampled_, history.size());
    apply_timestamp_rules(row, vocab_size_, history.data() + history.size() - num_tokens,
                          static_cast<int64_t>(num_tokens), options_.timestamps);
  }
  if (hooks.edit) hooks.edit(row, vocab_size_, history);
  if (hooks.allowed != nullptr) apply_mask(row, vocab_size_, hooks.allowed);
  return row;
}

int32_t Sampler::likeliest(const float* row) const {
  const int32_t best = argmax(row, vocab_size_);
  if (best < 0 || !std::isfinite(row[best])) {
    throw Error(ErrorCode::kExecution,
                "sampling: expected at least one finite logit among " +
                    std::to_string(vocab_size_) + " that no option forbids" +
                    (best < 0 ? ", got none" : ", got +inf at token " + std::to_string(best)));
  }
  return best;
}

int32_t Sampler::draw(const float* row) {
  const bool is_nucleus = options_.typical_p >= 1.0f;
  const bool is_typical = options_.top_p >= 1.0f && options_.min_p <= 0.0f;
  if (options_.top_k == 0 && (is_nucleus || is_typical)) return draw_from_row(row);
  filter(row);
  double remaining = next_uniform() * sum_of_values(candidates_);
  for (const Candidate& candidate : candidates_) {
    remaining -= static_cast<double>(candidate.value);
    if (remaining < 0.0) return candidate.token;
  }
  return candidates_.back().token;
}

// Only top_p and min_p are left, which keep the first tokens in the order of falling weights, or
// only typical_p, which has an order of its own. So a token is drawn from all, and it counts if
// those before it do not reach top_p yet; otherwise everything from it on is out as well and the
// next is drawn from what comes before it. That takes few rounds, since each one halves what is
// left on average, and no list of the tokens is made.
int32_t Sampler::draw_from_row(const float* row) {
  const float largest = largest_of_row(row);
  const double total = softmax_weights(row, vocab_size_, largest, options_.temperature,
                                       weights_.data(), sums_.data());
  const float* keys = weights_.data();
  Rank end{0.0f, 0};
  if (options_.typical_p < 1.0f) {
    distances_.resize(static_cast<size_t>(vocab_size_));
    typicality(row, vocab_size_, largest, options_.temperature, weights_.data(), total,
               distances_.data());
    keys = distances_.data();
    end.key = -INFINITY;
  }
  const float share = std::min(options_.top_p, options_.typical_p);
  const double wanted = static_cast<double>(share) * total;
  double left = total;
  if (options_.min_p > 0.0f) {  // the largest weight is 1
    end = {options_.min_p, vocab_size_};
    left = sums_before(end, keys, weights_.data(), vocab_size_, sums_.data());
  }
  while (true) {
    end = draw_before(end, keys, left);
    if (share >= 1.0f) break;
    left = sums_before(end, keys, weights_.data(), vocab_size_, sums_.data());
    if (left < wanted) break;
  }
  return static_cast<int32_t>(end.index);
}

// One of the tokens that come before `end`; sums_ are theirs and `total` the sum of those.
Rank Sampler::draw_before(Rank end, const float* keys, double total) {
  double remaining = next_uniform() * total;
  size_t block = 0;
  for (size_t i = 0; i < sums_.size(); ++i) {
    if (sums_[i] <= 0.0) continue;
    block = i;
    if (remaining < sums_[i]) break;
    remaining -= sums_[i];
  }
  Rank drawn = end;
  const int64_t begin = static_cast<int64_t>(block) * kRowBlock;
  for (int64_t i = begin; i < std::min(begin + kRowBlock, vocab_size_); ++i) {
    if (!end.is_after(keys[i], i)) continue;
    drawn = {keys[i], i};
    remaining -= static_cast<double>(weights_[static_cast<size_t>(i)]);
    if (remaining < 0.0) break;
  }
  return drawn;
}

float Sampler::largest_of_row(const float* row) {
  const float largest = block_maxima(row, vocab_size_, maxima_.data());
  if (!std::isfinite(largest)) likeliest(row);  // throws
  return largest;
}

// The candidates that all filters leave.
void Sampler::filter(const float* row) {
  const float largest = largest_of_row(row);
  double total = 0.0;
  candidates_.clear();
  if (options_.top_k > 0 && options_.top_k < vocab_size_) {
    gather_top_k(row, options_.top_k, candidates_);
    for (Candidate& candidate : candidates_)
      candidate.value = softmax_weight(candidate.value, largest, options_.temperature);
    keep_min_p(candidates_, kLeastWeight);
    total = sum_of_values(candidates_);
  } else {
    total = softmax_weights(row, vocab_size_, largest, options_.temperature, weights_.data(),
                            sums_.data());
    gather_weights(largest, total);
  }
  if (options_.top_p < 1.0f) keep_top_p(candidates_, static_cast<double>(options_.top_p) * total);
  if (options_.min_p > 0.0f) keep_min_p(candidates_, options_.min_p);  // the largest weight is 1
  if (options_.typical_p < 1.0f) keep_typical(candidates_, options_.typical_p, distances_);
}

// The k largest logits above -inf. At least k values reach the k-th largest of the block maxima, so
// that only what reaches it comes into question.
void Sampler::gather_top_k(const float* row, int64_t k, std::vector<Candidate>& found) {
  float least = -FLT_MAX;
  if (static_cast<size_t>(k) <= maxima_.size()) {
    sorted_maxima_ = maxima_;
    const auto kth = sorted_maxima_.begin() + static_cast<std::ptrdiff_t>(k - 1);
    std::nth_element(sorted_maxima_.begin(), kth, sorted_maxima_.end(), std::greater<float>());
    least = std::max(least, *kth);
  }
  gather(maxima_, least, row, vocab_size_, least, found);
  keep_top_k(found, k);
}

// The weights that top_p, min_p and typical_p may keep. The least weight that top_p keeps and those
// that it drops sum up to more than 1 - top_p, so it is above the vocab_size-th part of that.
void Sampler::gather_weights(float largest, double total) {
  float least = std::max(options_.min_p, kLeastWeight);
  if (options_.top_p < 1.0f) {
    const double rest = (1.0 - static_cast<double>(options_.top_p)) * total;
    least = std::max(least, static_cast<float>(0.99 * rest / static_cast<double>(vocab_size_)));
  }
  // The slack is more than the rounding of the weights.
  const float least_logit = largest + options_.temperature * (std::log(least) - 1e-3f);
  gather(maxima_, least_logit, weights_.data(), vocab_size_, least, candidates_);
}

void Sampler::note_logprobs(const float* logits, int32_t token) {
  const double log_total = log_sum_exp(logits, vocab_size_);
  const auto logprob_of = [log_total](float logit) {
    return static_cast<float>(static_cast<double>(logit) - log_total);
  };
  logprob_ = logprob_of(logits[token]);
  top_logprobs_.clear();
  if (options_.num_logprobs == 0) return;
  block_maxima(logits, vocab_size_, maxima_.data());
  gather_top_k(logits, options_.num_logprobs, top_logprobs_);
  std::sort(top_logprobs_.begin(), top_logprobs_.end(), [](const Candidate& a, const Candidate& b) {
    return a.value > b.value || (a.value == b.value && a.token < b.token);
  });
  for (Candidate& candidate : top_logprobs_) candidate.value = logprob_of(candidate.value);
}

// SplitMix64 (Steele, Lea and Flood 2014): one addition and a mix, any seed is a good seed.
double Sampler::next_uniform() {
  state_ += 0x9E3779B97F4A7C15ull;
  uint64_t bits = state_;
  bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9ull;
  bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EBull;
  bits ^= bits >> 31;
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

}  // namespace emm
