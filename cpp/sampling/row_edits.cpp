#include "sampling/row_edits.h"

#include <algorithm>
#include <cmath>

namespace emm {

void TokenCounts::resize(int64_t vocab_size) {
  counts_.assign(static_cast<size_t>(vocab_size), -1);
  seen_.clear();
  seen_.reserve(static_cast<size_t>(vocab_size));
  num_read_ = 0;
}

void TokenCounts::update(const std::vector<int64_t>& history, int64_t num_answer_tokens) {
  for (; num_read_ < history.size(); ++num_read_) {
    const int64_t token = history[num_read_];
    if (token < 0 || token >= static_cast<int64_t>(counts_.size())) continue;
    int32_t& count = counts_[static_cast<size_t>(token)];
    if (count < 0) {
      count = 0;
      seen_.push_back(static_cast<int32_t>(token));
    }
    if (num_read_ + static_cast<size_t>(num_answer_tokens) >= history.size()) ++count;
  }
}

void add_bias(float* row, const std::vector<std::pair<int32_t, float>>& logit_bias) {
  for (const auto& [token, bias] : logit_bias) row[token] += bias;
}

void penalise(float* row, const TokenCounts& counts, float repetition, float frequency,
              float presence) {
  for (const int32_t token : counts.seen()) {
    float& logit = row[token];
    logit = logit < 0.0f ? logit * repetition : logit / repetition;
    const int32_t count = counts.in_answer(token);
    if (count > 0) logit -= frequency * static_cast<float>(count) + presence;
  }
}

void ban_repeated_ngrams(float* row, int64_t vocab_size, const std::vector<int64_t>& history,
                         int64_t ngram_size) {
  const auto size = static_cast<int64_t>(history.size());
  if (size < ngram_size) return;
  const int64_t* prefix = history.data() + size - (ngram_size - 1);
  for (int64_t begin = 0; begin + ngram_size <= size; ++begin) {
    const int64_t* ngram = history.data() + begin;
    const int64_t last = ngram[ngram_size - 1];
    if (last >= 0 && last < vocab_size && std::equal(ngram, ngram + ngram_size - 1, prefix))
      row[last] = -INFINITY;
  }
}

void ban(float* row, int64_t vocab_size, const std::vector<int32_t>& tokens) {
  for (const int32_t token : tokens) {
    if (token >= 0 && token < vocab_size) row[token] = -INFINITY;
  }
}

void apply_mask(float* row, int64_t vocab_size, const uint32_t* allowed) {
  for (int64_t begin = 0; begin < vocab_size; begin += 32) {
    const uint32_t word = *allowed++;
    if (word == ~uint32_t{0}) continue;
    const int64_t count = std::min<int64_t>(32, vocab_size - begin);
    for (int64_t bit = 0; bit < count; ++bit) {
      if ((word >> bit & 1u) == 0) row[begin + bit] = -INFINITY;
    }
  }
}

}  // namespace emm
