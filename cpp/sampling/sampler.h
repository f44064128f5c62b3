// Chooses the tokens of one answer from rows of logits. Owns the answer's random state and scratch
// memory, which is allocated before the first row: sample() allocates nothing.
//
// The order of steps, which is transformers': logit_bias, repetition, frequency and presence
// penalties, no_repeat_ngram_size, min_new_tokens, suppress_tokens, begin_suppress_tokens,
// timestamps, hooks (edit, then allowed), temperature, top_k, top_p, min_p, typical_p. Forced
// tokens are taken whatever those say.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "sampling/logit_filters.h"
#include "sampling/logits_row.h"
#include "sampling/row_edits.h"
#include "sampling/sampling_options.h"

namespace emm {

// What the caller of one step brings along.
struct SampleHooks {
  // May change the logits (vocab_size); sees the token ids before them.
  std::function<void(float* row, int64_t vocab_size, const std::vector<int64_t>& history)> edit;
  // A bit for each token, see apply_mask(); null allows all.
  const uint32_t* allowed = nullptr;
};

// Throws Error(kInput), naming the field, when an id is outside of 0..vocab_size-1.
void check_token_id(const char* field, int64_t token, int64_t vocab_size);

class Sampler {
 public:
  explicit Sampler(const SamplingOptions& options) : options_(options), state_(options.seed) {}

  // Allocates for rows of this size. Throws Error(kInput) when an option names a token beyond it.
  void prepare(int64_t vocab_size);

  // Chooses from logits (vocab_size) that follow the tokens of `history`. Throws Error(kExecution)
  // when no logit is above -inf or the largest is +inf.
  int32_t sample(const float* logits, int64_t vocab_size, const std::vector<int64_t>& history,
                 const SampleHooks& hooks = {});

  // As if sample() had had one token to choose from: the next ones are as they would be then.
  void pass();

  // Chooses the next tokens as another sampler with these options would, which has come as far.
  void follow(const Sampler& other);

  // The likeliest num_logprobs tokens that may follow an answer whose `num_tokens` end `history`,
  // in top_logprobs(). Returns what turns these numbers into ln p in the model's own distribution.
  // Throws as sample() does.
  double rank(const float* logits, int64_t vocab_size, const std::vector<int64_t>& history,
              size_t num_tokens);

  // What sample() would draw from: the probability of each token, (vocab_size).
  void distribution(const float* logits, int64_t vocab_size, const std::vector<int64_t>& history,
                    const SampleHooks& hooks, double* probabilities);

  // Of the last sample(), where num_logprobs >= 0: ln p of the chosen token and of the likeliest
  // num_logprobs, falling, in the model's own distribution, before any option changes it; with
  // has_edited_logprobs after what changes single logits, before the temperature.
  float logprob() const { return logprob_; }
  const std::vector<Candidate>& top_logprobs() const { return top_logprobs_; }

 private:
  bool has_forced() const { return num_sampled_ < options_.forced_tokens.size(); }
  const float* edited(const float* logits, const std::vector<int64_t>& history,
                      const SampleHooks& hooks);
  int32_t likeliest(const float* row) const;
  int32_t draw(const float* row);
  int32_t draw_from_row(const float* row);
  Rank draw_before(Rank end, const float* keys, double total);
  float largest_of_row(const float* row);
  void filter(const float* row);
  void gather_top_k(const float* row, int64_t k, std::vector<Candidate>& found);
  void gather_weights(float largest, double total);
  void note_logprobs(const float* logits, int32_t token);
  double next_uniform();  // [0, 1)

  SamplingOptions options_;
  uint64_t state_;
  size_t num_sampled_ = 0;
  int64_t vocab_size_ = -1;  // what the scratch memory below is for
  TokenCounts counts_;
  std::vector<float> row_;     // the logits after edits
  std::vector<float> maxima_;  // of each block of a row
  std::vector<float> sorted_maxima_;
  std::vector<float> weights_;         // exp((logit - largest) / temperature) of the whole row
  std::vector<double> sums_;           // of each block of weights_
  std::vector<Candidate> candidates_;  // what filter() left
  std::vector<float> distances_;       // for typical_p
  float logprob_ = 0.0f;
  std::vector<Candidate> top_logprobs_;
};

}  // namespace emm
