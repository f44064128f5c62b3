// How many tokens to guess: as many as give the most tokens for the time of a round, in which they
// are guessed and read. Times are in calls for one token.
#pragma once

#include <cstdint>

namespace emm {

constexpr double kLeastGuessGain = 1.05;  // that a first guess is worth it for

// How far a round is.
struct GuessRound {
  double sure = 1.0;      // the chance that all guesses so far are right
  double expected = 1.0;  // tokens
  double spent = 0.0;     // on guessing
  int64_t num_guessed = 0;
};

struct GuessLength {
  int64_t length;
  double gain;  // in tokens for each call
};

// Of at most `most` further guesses, each of which takes `cost` and is right with this chance;
// none where no number of them gives more than `least_gain`. call_cost(n): of the call that reads n
// tokens.
template <class CallCost>
GuessLength best_guess_length(GuessRound round, double chance, double cost, int64_t most,
                              double least_gain, const CallCost& call_cost) {
  GuessLength best{0, least_gain};
  for (int64_t length = 1; length <= most; ++length) {
    round.sure *= chance;
    round.expected += round.sure;
    round.spent += cost;
    const double gain = round.expected / (round.spent + call_cost(round.num_guessed + length + 1));
    if (gain > best.gain) best = {length, gain};
  }
  return best;
}

// The least chance from `first` on with which guessing is worth it.
template <class IsWorthIt>
double least_guess_chance(double first, const IsWorthIt& is_worth_it) {
  while (first < 1.0 && !is_worth_it(first)) first += 0.05;
  return first;
}

}  // namespace emm
