// Changes to single logits before anything is drawn: pure functions on a row, each of which costs
// time in proportion to the tokens it names, not to the vocabulary.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace emm {

// The tokens of a context so far, counted as they come. Media positions (-1) and ids beyond the
// vocabulary have no logit and are left out.
class TokenCounts {
 public:
  void resize(int64_t vocab_size);
  // Reads what is new in `history`, whose last `num_answer_tokens` entries are the answer so far.
  void update(const std::vector<int64_t>& history, int64_t num_answer_tokens);

  const std::vector<int32_t>& seen() const { return seen_; }  // each token once
  int32_t in_answer(int32_t token) const { return counts_[static_cast<size_t>(token)]; }

 private:
  std::vector<int32_t> counts_;  // (vocab_size) occurrences in the answer; -1: not in the context
  std::vector<int32_t> seen_;
  size_t num_read_ = 0;
};

void add_bias(float* row, const std::vector<std::pair<int32_t, float>>& logit_bias);

// Divides positive logits of tokens in the context by `repetition` and multiplies negative ones;
// then takes `frequency` per occurrence in the answer and `presence` once from those in the answer.
void penalise(float* row, const TokenCounts& counts, float repetition, float frequency,
              float presence);

// Forbids what would complete an n-gram that `history` holds already.
void ban_repeated_ngrams(float* row, int64_t vocab_size, const std::vector<int64_t>& history,
                         int64_t ngram_size);

// Forbids tokens; a model's end tokens may lie beyond its logits.
void ban(float* row, int64_t vocab_size, const std::vector<int32_t>& tokens);

// Forbids the tokens whose bit is 0; bit i % 32 of word i / 32 is token i's.
void apply_mask(float* row, int64_t vocab_size, const uint32_t* allowed);

}  // namespace emm
