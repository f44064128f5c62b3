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
constexpr double kFirstChance = 0.75;
constexpr double kGoodChance = 0.85;
// Where guesses are not worth it, a pause follows, twice as long each time until they are.
constexpr int64_t kShortestPause = 32;
constexpr int64_t kLongestPause = 512;
constexpr int64_t kLeastContext = 8;  // that a draft is worth anything with
constexpr double kMostForEnd = 0.7;   // calls, for the end of a text that is not read as a whole
// How many tokens are likely to follow: these, and as many as there were.
constexpr int64_t kLikelyTokens = 64;
// Tokens of a prompt between two tokens of the answer, so that a stream goes on.
constexpr int64_t kReadAtOnce = 256;
constexpr int64_t kLeastMeasured = 32;  // tokens of a prompt whose time tells something
// An answer's own credit, where it has none of the load.
constexpr double kCreditAlone = 1.4;

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

Drafter::Drafter(std::shared_ptr<Session> session, double cost, bool is_estimate,
                 std::shared_ptr<DraftCredit> credit)
    : session_(std::move(session)),
      cost_(cost),
      is_estimate_(is_estimate),
      load_credit_(std::move(credit)),
      credit_(load_credit_) {}

double Drafter::cost() const {
  const double own = session_->costs()->one_ns();
  const double other = costs_ ? costs_->one_ns() : 0.0;
  return is_estimate_ && own > 0.0 && other > 0.0 ? own / other : cost_;
}

// The clock counts where costs are not given.
void Drafter::spend(double estimate, int64_t ns) {
  const double one = costs_ ? costs_->one_ns() : 0.0;
  spent_ += is_estimate_ && one > 0.0 ? static_cast<double>(ns) / one : estimate;
}

double Drafter::settle(int64_t num_tokens, double lost) {
  const double spent = std::exchange(spent_, 0.0);
  credit_->add(-spent - lost, num_tokens);
  return spent;
}

void Drafter::begin(const Session& session, SamplingOptions options, int64_t max_tokens,
                    bool is_alone) {
  settle(0, 0.0);  // an answer may have ended behind its last guess
  credit_ = is_alone ? std::make_shared<DraftCredit>(kCreditAlone) : load_credit_;
  num_at_begin_ = 0;
  session_->share_cancel(session);
  costs_ = session.costs();
  if (!is_estimate_) session.costs()->fix();
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

// How many further guesses are worth it, where each is right with this chance.
int64_t Drafter::best_length(const GuessRound& round, double chance, int64_t most) const {
  const double least = round.num_guessed == 0
                           ? kLeastGuessGain
                           : round.expected / (round.spent + call_cost(round.num_guessed + 1));
  return longest(round, chance, most, least).length;
}

GuessLength Drafter::longest(const GuessRound& round, double chance, int64_t most,
                             double least_gain) const {
  return best_guess_length(round, chance, cost(), most, least_gain,
                           [this](int64_t count) { return call_cost(count); });
}

std::vector<int64_t> Drafter::guess(const std::vector<int64_t>& text, int64_t remaining,
                                    const Sampler& sampler, int64_t deadline_ns, double may_lose) {
  drafted_.clear();
  if (num_at_begin_ == 0) num_at_begin_ = text.size();
  may_lose = std::max(may_lose, credit_->now());
  int64_t most = std::min(remaining, most_);
  const auto loss = [&] { return static_cast<double>(most) * cost() + call_cost(most + 1) - 1.0; };
  while (most > 0 && loss() > may_lose) --most;
  if (most < 1 || !sampler_) return {};
  if (pause_ > 0) {
    --pause_;
    return {};
  }
  if (best_length({}, chance_, most) == 0) return {};
  try {
    if (!follow(text, remaining, deadline_ns, may_lose)) return {};
    while (most > 0 && loss() + spent_ > may_lose) --most;
    if (most < 1) return {};
    return draft(most, sampler, deadline_ns);
  } catch (const Error& error) {
    drafted_.clear();
    if (error.code() != ErrorCode::kProcess) session_->reset();  // all is read again
    if (error.code() == ErrorCode::kCapacity) return {};
    throw Error(error.code(), std::string("draft_model: ") + error.what());
  }
}

// What guesses save of each call of one token, if they are right as often as in other answers.
double Drafter::saving() const {
  return 1.0 - 1.0 / longest({}, credit_->chance(), most_, 1.0).gain;
}

// Of a text that its context has no room for, it reads so much that as much again can follow.
void Drafter::place_beginning(size_t num_tokens) {
  const Contract& contract = session_->contract();
  const int64_t room = contract.capacity - most_ - 1;
  const auto size = static_cast<int64_t>(num_tokens);
  if (contract.cache.is_unbounded || size <= room)
    beginning_ = 0;
  else if (beginning_ >= num_tokens || size - static_cast<int64_t>(beginning_) > room)
    beginning_ = static_cast<size_t>(size - contract.capacity / 2);
}

// Reads what it has not read of the text. False where that cannot be done, is not worth it, or
// takes more calls than are made between two tokens.
bool Drafter::follow(const std::vector<int64_t>& text, int64_t remaining, int64_t deadline_ns,
                     double may_lose) {
  std::vector<int64_t> all;
  all.reserve(text.size());
  for (const int64_t token : text) {
    if (token >= 0) all.push_back(token);  // not media
  }
  if (all.empty()) return false;
  const double token_price = credit_->prompt_token() * cost();
  const std::vector<int64_t> known = session_->history();
  // How many tokens are read anew where so many are skipped, for what comes after the last one.
  const auto kept_with = [&](size_t skipped) {
    const auto begin = all.begin() + static_cast<std::ptrdiff_t>(std::min(skipped, all.size() - 1));
    const auto end = std::mismatch(known.begin(), known.end(), begin, all.end());
    const auto keep = std::min<int64_t>(end.first - known.begin(), all.end() - begin - 1);
    const bool is_open =
        keep >= session_->lowest_rewind() || keep == static_cast<int64_t>(known.size());
    return is_open ? keep : 0;
  };
  const auto price = [&](size_t skipped) {
    const int64_t count =
        static_cast<int64_t>(all.size() - std::min(skipped, all.size() - 1)) - kept_with(skipped);
    return count <= kLeastContext ? 0.0 : token_price * static_cast<double>(count);
  };
  const int64_t num_said = static_cast<int64_t>(text.size()) - static_cast<int64_t>(num_at_begin_);
  const int64_t likely = std::min(remaining, kLikelyTokens + std::max<int64_t>(num_said, 0));
  const double gain = saving() * static_cast<double>(likely);
  const double affordable = std::min(may_lose / 2, gain);
  place_beginning(all.size());
  // The end alone is tried where the rest cannot be paid: it tells little of what all would.
  if (const double whole = price(beginning_); whole > gain && whole <= may_lose / 2) return false;
  if (num_skipped_ < beginning_ || num_skipped_ >= all.size() || price(beginning_) <= affordable)
    num_skipped_ = beginning_;
  if (price(num_skipped_) > affordable) {
    const double for_end = std::min(affordable, kMostForEnd);
    const auto most = std::min<int64_t>(
        std::max(kLeastContext, static_cast<int64_t>(for_end / std::max(token_price, 1e-6))),
        static_cast<int64_t>(all.size() - beginning_));
    num_skipped_ = all.size() - static_cast<size_t>(most);
  }
  const std::vector<int64_t> tokens(all.begin() + static_cast<std::ptrdiff_t>(num_skipped_),
                                    all.end());
  const int64_t keep = kept_with(num_skipped_);
  const int64_t vocab_size = session_->contract().vocab_size;
  const auto is_unknown = [&](int64_t token) { return token >= vocab_size; };
  if (std::any_of(tokens.begin() + keep, tokens.end(), is_unknown)) return false;
  if (keep < static_cast<int64_t>(known.size()) || !session_->pending_tokens().empty())
    session_->rewind(keep);
  return read({tokens.begin() + keep, tokens.end()}, deadline_ns);
}

// The first of these tokens; false where some are left.
bool Drafter::read(const std::vector<int64_t>& tokens, int64_t deadline_ns) {
  const auto count = std::min(static_cast<int64_t>(tokens.size()), kReadAtOnce);
  const int64_t before = session_->timings().prefill_ns;
  session_->begin_prefill({TokenInput{{tokens.begin(), tokens.begin() + count}}});
  bool is_read = true;
  while (is_read && session_->next_chunk()) {
    is_read = !session_->is_cancelled() && now_ns() < deadline_ns;
    if (is_read)
      session_->step_prefill(soon(deadline_ns));
    else
      session_->abort_prefill();
  }
  const int64_t ns = session_->timings().prefill_ns - before;
  const double per_token = credit_->prompt_token();
  spend(count <= kLeastContext ? cost() : per_token * cost() * static_cast<double>(count), ns);
  const double one = session_->costs()->one_ns();
  if (is_read && is_estimate_ && count >= kLeastMeasured && one > 0.0)
    credit_->measure_prompt_token(static_cast<double>(ns) / one / static_cast<double>(count));
  return is_read && count == static_cast<int64_t>(tokens.size());
}

std::vector<int64_t> Drafter::draft(int64_t most, const Sampler& sampler, int64_t deadline_ns) {
  if (!sampler_) return {};  // no answer has begun
  Sampler& own = *sampler_;
  own.follow(sampler);
  std::vector<int64_t> guesses;
  std::vector<double> expected = {1.0};  // tokens, if so many guesses are read
  double sure = 1.0;
  double spent = cost();
  const auto num_drafted = [&] { return static_cast<int64_t>(guesses.size()); };
  do {
    if (session_->is_full()) break;
    const RequestTimings& timings = session_->timings();
    const int64_t decode_ns = timings.decode_ns;
    const int64_t before = decode_ns + timings.sample_ns;
    const std::optional<int32_t> token = session_->step(own, {}, {}, soon(deadline_ns));
    spend(guesses.empty() ? 0.0 : cost(), timings.decode_ns + timings.sample_ns - before);
    if (timings.decode_ns > decode_ns)
      session_->costs()->add(1, timings.decode_ns + timings.sample_ns - before);
    if (!token && (session_->is_cancelled() || now_ns() >= deadline_ns)) break;
    if (!token) continue;
    if (!guesses.empty()) spent += cost();
    guesses.push_back(*token);
    drafted_.push_back(class_of(std::exp(double{own.logprob()})));
    sure *= chances_[drafted_.back()];
    expected.push_back(expected.back() + sure);
  } while (num_drafted() < most && best_length({sure, expected.back(), spent, num_drafted()},
                                               chance_, most - num_drafted()) > 0);
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
  if (best_length({}, chance_, most_) > 0) return;
  chance_ = first_chance();
  pause_ = next_pause_;
  next_pause_ = std::min(2 * next_pause_, kLongestPause);
}

// The least chance that is worth a try.
double Drafter::first_chance() const {
  return least_guess_chance(kFirstChance,
                            [this](double chance) { return best_length({}, chance, most_) > 0; });
}

void Drafter::learn(int64_t num_right, bool was_wrong) {
  const auto known = static_cast<int64_t>(drafted_.size());
  for (int64_t i = 0; i < std::min(num_right, known); ++i) {
    double& chance = chances_[drafted_[static_cast<size_t>(i)]];
    chance += kLearning * (1.0 - chance);
    chance_ += kLearning * (1.0 - chance_);
    if (num_skipped_ == beginning_) credit_->learn(true);
  }
  if (chance_ > kGoodChance) next_pause_ = kShortestPause;
  if (was_wrong && num_right < known) {
    double& chance = chances_[drafted_[static_cast<size_t>(num_right)]];
    chance -= kLearning * chance;
    if (num_skipped_ == beginning_) credit_->learn(false);
    lose();
  }
  drafted_.clear();
}

}  // namespace emm
