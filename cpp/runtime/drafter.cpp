#include "runtime/drafter.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "base/clock.h"
#include "base/error.h"
#include "runtime/prompt_lookup.h"

namespace emm {
namespace {

constexpr double kLearning = 1.0 / 8;
constexpr double kLeastGain = 1.05;
constexpr double kFirstChance = 0.75;
constexpr double kGoodChance = 0.85;
// Where guesses are not worth it, a pause follows, twice as long each time until they are.
constexpr int64_t kShortestPause = 32;
constexpr int64_t kLongestPause = 512;
// A token of a prompt, in calls for one token: those are read many at a time.
constexpr double kPromptToken = 0.15;
// What an answer gains at most, in calls for each token.
constexpr double kMostGain = 0.5;

constexpr std::array<double, 4> kClassEnds = {0.3, 0.6, 0.8, 0.95};
constexpr std::array<double, 5> kFirstChances = {0.3, 0.5, 0.7, 0.85, 0.95};

size_t class_of(double probability) {
  size_t found = 0;
  while (found < kClassEnds.size() && probability >= kClassEnds[found]) ++found;
  return found;
}

// Whoever cancels the answer wakes those who wait for its model, not for this one: these look
// themselves.
constexpr int64_t kLookEvery = 20'000'000;

int64_t soon(int64_t deadline_ns) { return std::min(deadline_ns, now_ns() + kLookEvery); }

template <typename T, typename GetToken>
void drop_beyond(std::vector<T>& options, int64_t vocab_size, const GetToken& token_of) {
  const auto is_beyond = [&](const T& option) { return token_of(option) >= vocab_size; };
  options.erase(std::remove_if(options.begin(), options.end(), is_beyond), options.end());
}

// Vocabularies are padded differently: what this model has no logits for it cannot guess anyway.
SamplingOptions for_draft(SamplingOptions options, int64_t vocab_size) {
  const auto itself = [](int32_t token) { return int64_t{token}; };
  drop_beyond(options.logit_bias, vocab_size,
              [](const auto& entry) { return int64_t{entry.first}; });
  drop_beyond(options.suppress_tokens, vocab_size, itself);
  drop_beyond(options.forced_tokens, vocab_size, itself);
  options.num_logprobs = 0;  // says how likely the chosen one is
  options.has_edited_logprobs = false;
  return options;
}

}  // namespace

Drafter::Drafter(std::shared_ptr<Session> session, double cost)
    : session_(std::move(session)), cost_(cost) {}

void Drafter::begin(const Session& session, SamplingOptions options, int64_t max_tokens) {
  session_->share_cancel(session);
  session_->set_priority(session.priority());
  most_ = max_tokens;
  if (options.temperature > 0.0f)
    chances_.fill(kFirstChance);  // both draw with the same numbers: the unlikely often, too
  else
    chances_ = kFirstChances;
  chance_ = first_chance();
  pause_ = 0;
  next_pause_ = kShortestPause;
  drafted_.clear();
  sampler_.emplace(for_draft(std::move(options), session_->contract().vocab_size));
}

// The number of further guesses that gives the most tokens for the time of a round, in which so
// many tokens are expected and so much was spent on the draft. `sure`: that all guesses so far are
// right.
int64_t Drafter::best_length(double sure, double expected, double spent, int64_t num_drafted,
                             int64_t most) const {
  int64_t best = 0;
  double best_gain = expected / (spent + call_cost(num_drafted + 1));
  if (num_drafted == 0) best_gain = kLeastGain;
  for (int64_t length = 1; length <= most; ++length) {
    sure *= chance_;
    expected += sure;
    spent += cost_;
    const double gain = expected / (spent + call_cost(num_drafted + length + 1));
    if (gain > best_gain) {
      best = length;
      best_gain = gain;
    }
  }
  return best;
}

std::vector<int64_t> Drafter::guess(const std::vector<int64_t>& text, int64_t remaining,
                                    const Sampler& sampler, int64_t deadline_ns) {
  drafted_.clear();
  const int64_t most = std::min(remaining, most_);
  if (most < 1 || !sampler_) return {};
  if (pause_ > 0) {
    --pause_;
    return {};
  }
  if (best_length(1.0, 1.0, 0.0, 0, most) == 0) return {};
  try {
    if (!follow(text, remaining, deadline_ns)) return {};
    return draft(most, sampler, deadline_ns);
  } catch (const Error& error) {
    drafted_.clear();
    if (error.code() != ErrorCode::kProcess) session_->reset();  // all is read again
    if (error.code() == ErrorCode::kCapacity) return {};
    throw Error(error.code(), std::string("draft_model: ") + error.what());
  }
}

// Reads what it has not read of the text. False where that cannot be done or is not worth it.
bool Drafter::follow(const std::vector<int64_t>& text, int64_t remaining, int64_t deadline_ns) {
  std::vector<int64_t> tokens;
  tokens.reserve(text.size());
  for (const int64_t token : text) {
    if (token >= 0) tokens.push_back(token);  // not media
  }
  if (tokens.empty()) return false;
  const std::vector<int64_t> known = session_->history();
  const auto end = std::mismatch(known.begin(), known.end(), tokens.begin(), tokens.end());
  // The last token is always read, for what comes after it.
  int64_t keep =
      std::min<int64_t>(end.first - known.begin(), static_cast<int64_t>(tokens.size()) - 1);
  if (keep < session_->lowest_rewind() && keep < static_cast<int64_t>(known.size())) keep = 0;
  const int64_t num_new = static_cast<int64_t>(tokens.size()) - keep;
  const double price = num_new <= 8 ? 0.0 : kPromptToken * cost_ * static_cast<double>(num_new);
  if (price > kMostGain * static_cast<double>(remaining)) return false;
  const int64_t vocab_size = session_->contract().vocab_size;
  const auto is_unknown = [&](int64_t token) { return token >= vocab_size; };
  if (std::any_of(tokens.begin() + keep, tokens.end(), is_unknown)) return false;
  if (keep < static_cast<int64_t>(known.size()) || !session_->pending_tokens().empty())
    session_->rewind(keep);
  session_->begin_prefill({TokenInput{{tokens.begin() + keep, tokens.end()}}});
  while (session_->next_chunk()) {
    if (session_->is_cancelled() || now_ns() >= deadline_ns) {
      session_->abort_prefill();
      return false;
    }
    session_->step_prefill(soon(deadline_ns));
  }
  return true;
}

std::vector<int64_t> Drafter::draft(int64_t most, const Sampler& sampler, int64_t deadline_ns) {
  if (!sampler_) return {};  // no answer has begun
  Sampler& own = *sampler_;
  own.follow(sampler);
  std::vector<int64_t> guesses;
  std::vector<double> expected = {1.0};  // tokens, if so many guesses are read
  double sure = 1.0;
  double spent = cost_;
  const auto num_drafted = [&] { return static_cast<int64_t>(guesses.size()); };
  do {
    if (session_->is_full()) break;
    const std::optional<int32_t> token = session_->step(own, {}, {}, soon(deadline_ns));
    if (!token && (session_->is_cancelled() || now_ns() >= deadline_ns)) break;
    if (!token) continue;
    if (!guesses.empty()) spent += cost_;
    guesses.push_back(*token);
    drafted_.push_back(class_of(std::exp(double{own.logprob()})));
    sure *= chances_[drafted_.back()];
    expected.push_back(expected.back() + sure);
  } while (num_drafted() < most &&
           best_length(sure, expected.back(), spent, num_drafted(), most - num_drafted()) > 0);
  // What was spent is gone: reading so many guesses gives the most for the time.
  size_t best = 0;
  const auto gain = [&](size_t count) {
    return expected[count] / (spent + call_cost(static_cast<int64_t>(count) + 1));
  };
  for (size_t count = 1; count < expected.size(); ++count) {
    if (gain(count) > gain(best)) best = count;
  }
  guesses.resize(best);
  drafted_.resize(best);
  if (best == 0) lose();
  return guesses;
}

// The draft was for nothing.
void Drafter::lose() {
  chance_ -= kLearning * chance_;
  if (best_length(1.0, 1.0, 0.0, 0, most_) > 0) return;
  chance_ = first_chance();
  pause_ = next_pause_;
  next_pause_ = std::min(2 * next_pause_, kLongestPause);
}

// The least chance that is worth a try.
double Drafter::first_chance() {
  chance_ = kFirstChance;
  while (chance_ < 1.0 && best_length(1.0, 1.0, 0.0, 0, most_) == 0) chance_ += 0.05;
  return chance_;
}

void Drafter::learn(int64_t num_right, bool was_wrong) {
  const auto known = static_cast<int64_t>(drafted_.size());
  for (int64_t i = 0; i < std::min(num_right, known); ++i) {
    double& chance = chances_[drafted_[static_cast<size_t>(i)]];
    chance += kLearning * (1.0 - chance);
    chance_ += kLearning * (1.0 - chance_);
  }
  if (chance_ > kGoodChance) next_pause_ = kShortestPause;
  if (was_wrong && num_right < known) {
    double& chance = chances_[drafted_[static_cast<size_t>(num_right)]];
    chance -= kLearning * chance;
    lose();
  }
  drafted_.clear();
}

}  // namespace emm
