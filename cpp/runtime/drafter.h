// Guesses how an answer goes on by asking a smaller model with the same vocabulary, in a
// conversation of its own that follows the text: what the two have in common stays read, the rest
// is read anew. It sees no images and no audio.
//
// How much is guessed follows from how often guesses have been right, by how sure the small model
// was, and from what the calls of both models take. A long text is read from its beginning, or as
// much of it as its context has room for, where guesses are likely to gain what that takes and the
// load's credit pays for it; else only a little of its end.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "runtime/draft_credit.h"
#include "runtime/guess_length.h"
#include "runtime/session.h"
#include "sampling/sampler.h"

namespace emm {

class Drafter {
 public:
  // `cost`: of a call of this model for one token, in such calls of the one that answers; where
  // `is_estimate`, until both have been measured. Where not, nothing is measured of either.
  // `credit`: of the load.
  Drafter(std::shared_ptr<Session> session, double cost, bool is_estimate = false,
          std::shared_ptr<DraftCredit> credit = std::make_shared<DraftCredit>());

  // A new answer, which `session` gives and which is cancelled there; so many tokens at a time.
  // `is_alone`: what is guessed must not follow from other answers, so that the load's credit is
  // left alone.
  void begin(const Session& session, SamplingOptions options, int64_t max_tokens,
             bool is_alone = false);
  // What may follow `text`, where the answer may still have so many tokens; nothing where that is
  // not worth reading, where this model cannot tell or has not read enough yet, or where it would
  // lose more than `may_lose` and more than the credit, in calls of one token, if all were wrong.
  // `sampler` will choose the tokens. Errors say that they are the draft model's.
  std::vector<int64_t> guess(const std::vector<int64_t>& text, int64_t remaining,
                             const Sampler& sampler, int64_t deadline_ns, double may_lose);
  // What guesses have taken since this was last asked, in calls of one token. So many tokens came
  // meanwhile, and the calls that read this model's guesses took so much more than they saved.
  double settle(int64_t num_tokens, double lost);
  // So many of the last guess were right, the next one of them was wrong.
  void learn(int64_t num_right, bool was_wrong);

  Session& session() { return *session_; }

 private:
  static constexpr size_t kNumClasses = 5;

  bool follow(const std::vector<int64_t>& text, int64_t remaining, int64_t deadline_ns,
              double may_lose);
  void place_beginning(size_t num_tokens);
  bool read(const std::vector<int64_t>& tokens, int64_t deadline_ns);
  double saving() const;
  std::vector<int64_t> draft(int64_t most, const Sampler& sampler, int64_t deadline_ns);
  double cost() const;
  double call_cost(int64_t num_tokens) const { return costs_ ? costs_->of(num_tokens) : 1.0; }
  void spend(double estimate, int64_t ns);
  int64_t best_length(const GuessRound& round, double chance, int64_t most) const;
  GuessLength longest(const GuessRound& round, double chance, int64_t most,
                      double least_gain) const;
  double first_chance() const;
  void lose();

  std::shared_ptr<Session> session_;
  double cost_;
  bool is_estimate_;
  std::shared_ptr<const CallCosts> costs_;  // of the model that answers
  std::shared_ptr<DraftCredit> load_credit_;
  std::shared_ptr<DraftCredit> credit_;
  double spent_ = 0;
  size_t num_at_begin_ = 0;  // tokens of the text, at the first guess for an answer
  size_t beginning_ = 0;     // tokens at the beginning of the text that its context has no room for
  size_t num_skipped_ = 0;   // those that it does not read for now
  std::optional<Sampler> sampler_;
  // The chance that a guess is right, by how likely it seemed, and that of all.
  std::array<double, kNumClasses> chances_{};
  double chance_ = 0;
  int64_t most_ = 0;
  int64_t pause_ = 0;  // occasions that are let pass
  int64_t next_pause_ = 0;
  std::vector<size_t> drafted_;  // of the last guess: which class each is of
};

}  // namespace emm
