#include "runtime/session.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/clock.h"
#include "base/error.h"
#include "base/exclusive.h"
#include "sampling/logits_row.h"

namespace emm {

Session::Session(std::unique_ptr<Executor> executor)
    : executor_(std::move(executor)),
      position_(executor_->contract().capacity, executor_->contract().cache),
      checkpoint_{position_, 0, {}, false, nullptr} {}

Session::Session(std::unique_ptr<Executor> executor, const Session& other)
    : Session(std::move(executor)) {
  priority_ = other.priority_.load();
  chunk_limit_ = other.chunk_limit_;
  weights_ = other.weights_;
  encoder_cache_ = other.encoder_cache_;
  costs_ = other.costs_;
}

void Session::limit_chunks(int64_t num_positions) {
  const auto lock = enter();
  chunk_limit_ = std::max<int64_t>(1, num_positions);
}

// Without a KV cache each chunk reads all that came before it again.
int64_t Session::chunk_limit() const {
  const bool has_cache = contract().position_style != PositionStyle::kNone;
  return has_cache ? chunk_limit_ : std::numeric_limits<int64_t>::max();
}

int64_t Session::max_chunk() const { return std::min(contract().max_chunk, chunk_limit()); }

std::unique_lock<std::mutex> Session::enter() const {
  return lock_or_refuse(mutex_, "the session");
}

void Session::expect_idle() const {
  if (is_prefilling())
    throw Error(ErrorCode::kBusy, "a prompt is being read: finish or abort it first");
}

void Session::expect_intact() const {
  if (position_.is_intact()) return;
  throw Error(ErrorCode::kExecution,
              "the model's state was lost when a call failed: reset() or restore() a snapshot");
}

int64_t Session::position() const {
  const std::lock_guard books(books_);
  return position_.used();
}

std::vector<int64_t> Session::pending_tokens() const {
  const std::lock_guard books(books_);
  return pending_tokens_;
}

std::vector<int64_t> Session::history() const {
  const std::lock_guard books(books_);
  return history_;
}

// The cache holds these tokens now, or as many rows of media where there are no ids.
void Session::advance(const int64_t* ids, int64_t num_positions) {
  const std::lock_guard books(books_);
  if (position_.used() == 0) {
    reader_ = {contract().decoder_name, weights_, false};
  } else if (!is_read_by_this()) {
    reader_.is_mixed = true;
  }
  position_.advance(num_positions);
  if (ids != nullptr)
    history_.insert(history_.end(), ids, ids + num_positions);
  else
    history_.resize(history_.size() + static_cast<size_t>(num_positions), kMediaPosition);
}

// With the books locked. Of media that end behind it nothing is known any more.
void Session::cut_history(size_t size) {
  history_.resize(size);
  while (!media_.empty() &&
         media_.back().position + media_.back().num_rows > static_cast<int64_t>(size))
    media_.pop_back();
}

void Session::clear_pending() {
  const std::lock_guard books(books_);
  pending_tokens_.clear();
}

void Session::cancel() {
  *is_cancelled_ = true;
  if (TurnQueue* const turns = executor_->turns()) turns->look();
}

void Session::begin_request() {
  const auto lock = enter();
  *is_cancelled_ = false;
  timings_ = {};
  timings_.start_ns = now_ns();
}

void Session::begin_answer() {
  const auto lock = enter();
  timings_.first_token_ns = timings_.decode_ns = timings_.sample_ns = 0;
  timings_.num_decode_steps = timings_.num_shared_steps = 0;
  timings_.num_generated_tokens = timings_.num_forced_tokens = 0;
  timings_.num_drafted_tokens = timings_.num_accepted_tokens = 0;
}

TensorView Session::decode_ids(const int64_t* ids, int64_t num_tokens, int64_t num_guesses,
                               Step* own, bool is_alone) {
  ahead_.clear();
  expect_intact();
  position_.begin_write(num_tokens + num_guesses);
  int64_t num_read = num_tokens + num_guesses;
  int64_t position = position_.used();
  std::vector<int64_t> all;
  const int64_t* read = ids;
  if (contract().position_style == PositionStyle::kNone) {
    // Without a KV cache the model reads the whole conversation again.
    all = history_;
    all.insert(all.end(), ids, ids + num_read);
    read = all.data();
    num_read = static_cast<int64_t>(all.size());
    position = 0;
  }
  const TensorView logits =
      num_guesses == 0
          ? decode_in_company({executor_.get(), read, num_read, position}, own)
          : executor_->decode_rows(read, num_read, position, num_guesses + 1, is_alone);
  advance(ids, num_tokens);
  return logits;
}

void Session::keep_logits(const TensorView& logits) {
  logits_ = {as_float32(logits, own_logits_), DType::kFloat32, logits.shape};
  has_logits_ = true;
}

void Session::own_logits() {
  const auto* values = static_cast<const float*>(logits_.data);
  if (values == own_logits_.data()) return;
  own_logits_.assign(values, values + logits_.size());
  logits_.data = own_logits_.data();
}

std::vector<float> Session::copied_logits() const {
  if (!has_logits_) return {};
  const auto* values = static_cast<const float*>(logits_.data);
  return {values, values + logits_.size()};
}

void Session::adopt_logits(std::vector<float> logits) {
  has_logits_ = !logits.empty();
  own_logits_ = std::move(logits);
  logits_ = {own_logits_.data(), DType::kFloat32, {static_cast<int64_t>(own_logits_.size())}};
}

// What the executor has lent will be anybody's.
void Session::own_outputs() {
  if (has_logits_) own_logits();
  ahead_.clear();
}

std::vector<float> Session::logprobs(const std::vector<int64_t>& ids) const {
  const auto lock = enter();
  expect_idle();
  if (!has_logits_ || !pending_tokens_.empty())
    throw Error(ErrorCode::kInput, "logprobs: expected a prompt that was read just before");
  const auto* logits = static_cast<const float*>(logits_.data);
  const double total = log_sum_exp(logits, logits_.size());
  std::vector<float> found;
  for (const int64_t id : ids) {
    check_token_id("logprobs", id, logits_.size());
    found.push_back(static_cast<float>(static_cast<double>(logits[id]) - total));
  }
  return found;
}

std::vector<ReadToken> Session::read_scored(const std::vector<int64_t>& ids, int64_t deadline_ns) {
  const auto lock = enter();
  expect_idle();
  for (const int64_t id : ids) check_token_id("ids", id, contract().vocab_size);
  const auto num_given = static_cast<int64_t>(ids.size());
  check_capacity(static_cast<int64_t>(pending_tokens_.size()) + num_given, position_.available(),
                 contract().capacity);
  if (num_given == 0 || !read_pending(deadline_ns)) return {};
  const int64_t num_read = contract().all_logits ? std::min(num_given, max_chunk()) : 1;
  std::vector<ReadToken> scores(1);
  if (has_logits_) scores[0] = score(static_cast<const float*>(logits_.data), ids[0]);

  const Turn turn = await_turn(deadline_ns);
  if (!turn.has_come()) return {};
  const ScopedTimer timer(timings_.prefill_ns);
  if (num_read == 1) {
    keep_logits(decode_ids(ids.data(), 1));
  } else {
    const TensorView rows = decode_ids(ids.data(), 1, num_read - 1);
    std::vector<float> converted;
    for (int64_t row = 0; row + 1 < num_read; ++row)
      scores.push_back(
          score(as_float32(row_range(rows, row, 1), converted), ids[static_cast<size_t>(row) + 1]));
    advance(ids.data() + 1, num_read - 1);
    TensorView last = row_range(rows, num_read - 1, 1);
    last.shape = {last.shape[1]};
    keep_logits(last);
  }
  timings_.num_prompt_positions += num_read;
  return scores;
}

ReadToken Session::score(const float* logits, int64_t id) const {
  const int64_t size = contract().vocab_size;
  const double total = log_sum_exp(logits, size);
  const int32_t likeliest = argmax(logits, size);
  return {static_cast<float>(static_cast<double>(logits[id]) - total),
          likeliest >= 0 && logits[id] >= logits[likeliest]};
}

std::vector<float> Session::alignment() const {
  const auto lock = enter();
  const TensorView view = executor_->alignment();
  if (view.data == nullptr)
    throw Error(ErrorCode::kInput, "alignment: the model does not tell what it looks at");
  std::vector<float> converted;
  const float* values = as_float32(view, converted);
  return {values, values + view.size()};
}

void Session::expect_prompt() const {
  if (can_generate()) return;
  throw Error(ErrorCode::kInput, "prompt: expected at least one token, image or clip, got none");
}

// Those of the pending tokens that were guessed have been read.
void Session::take_guessed() {
  size_t count = 0;
  while (count < pending_tokens_.size() && ahead_.is_next(pending_tokens_[count])) {
    keep_logits(ahead_.take());
    ++count;
  }
  if (count == 0) return;
  timings_.num_accepted_tokens += static_cast<int64_t>(count);
  advance(pending_tokens_.data(), static_cast<int64_t>(count));
  const std::lock_guard books(books_);
  pending_tokens_.erase(pending_tokens_.begin(),
                        pending_tokens_.begin() + static_cast<std::ptrdiff_t>(count));
}

// So many may be read and forgotten again.
int64_t Session::room_for_guesses() const {
  const auto num_pending = static_cast<int64_t>(pending_tokens_.size());
  int64_t room = std::min(contract().max_chunk, position_.available()) - num_pending;
  while (room > 0 && !position_.stays_open(num_pending + room)) --room;
  return contract().all_logits ? std::max<int64_t>(room, 0) : 0;
}

// False where it was cancelled before its turn or the deadline came first.
bool Session::read_pending(int64_t deadline_ns, const std::vector<int64_t>& guesses) {
  take_guessed();
  const auto num_tokens = static_cast<int64_t>(pending_tokens_.size());
  if (num_tokens == 0) return true;
  check_capacity(num_tokens, position_.available(), contract().capacity);
  // Several that are pending are read in one call without guesses, and so are they with them.
  const int64_t num_guesses =
      guesses.empty() || num_tokens > 1
          ? 0
          : std::min<int64_t>(static_cast<int64_t>(guesses.size()), room_for_guesses());
  if (num_guesses == 0) {
    if (!read_in_company(deadline_ns)) return false;
  } else {
    const Turn turn = await_turn(deadline_ns);
    if (!turn.has_come()) return false;
    const ScopedTimer timer(timings_.decode_ns);
    const std::vector<int64_t> guessed(guesses.begin(), guesses.begin() + num_guesses);
    std::vector<int64_t> ids = pending_tokens_;
    ids.insert(ids.end(), guessed.begin(), guessed.end());
    // Without a cache a call of one token reads all others, too.
    const bool is_alone = contract().position_style != PositionStyle::kNone;
    const TensorView rows = decode_ids(ids.data(), num_tokens, num_guesses, nullptr, is_alone);
    ahead_.keep(guessed, row_range(rows, 1, num_guesses));
    TensorView first = row_range(rows, 0, 1);
    first.shape = {first.shape[1]};
    keep_logits(first);
  }
  clear_pending();
  ++timings_.num_decode_steps;
  timings_.num_drafted_tokens += num_guesses;
  return true;
}

bool Session::needs_call() const {
  const std::lock_guard books(books_);
  return pending_tokens_.size() > 1 ||
         (pending_tokens_.size() == 1 && !ahead_.is_next(pending_tokens_[0]));
}

void Session::add_pending(int32_t token) {
  if (timings_.num_generated_tokens++ == 0) timings_.first_token_ns = now_ns() - timings_.start_ns;
  const std::lock_guard books(books_);
  pending_tokens_.push_back(token);
}

bool Session::append(int32_t token, int64_t deadline_ns) {
  const auto lock = enter();
  expect_idle();
  expect_prompt();
  const bool is_enough = static_cast<int64_t>(pending_tokens_.size()) >= max_chunk();
  if (is_enough && !read_pending(deadline_ns)) return false;
  ++timings_.num_forced_tokens;
  add_pending(token);
  return true;
}

std::optional<int32_t> Session::step(Sampler& sampler, const SampleHooks& hooks,
                                     const std::vector<int64_t>& guesses, int64_t deadline_ns) {
  const auto lock = enter();
  expect_idle();
  expect_prompt();
  if (!read_pending(deadline_ns, guesses)) return std::nullopt;
  int32_t token = 0;
  {
    const ScopedTimer timer(timings_.sample_ns);
    token =
        sampler.sample(static_cast<const float*>(logits_.data), logits_.size(), history_, hooks);
  }
  add_pending(token);
  return token;
}

std::optional<double> Session::rank(Sampler& sampler, int64_t num_tokens, int64_t deadline_ns) {
  const auto lock = enter();
  expect_idle();
  expect_prompt();
  if (!read_pending(deadline_ns)) return std::nullopt;
  const ScopedTimer timer(timings_.sample_ns);
  return sampler.rank(static_cast<const float*>(logits_.data), logits_.size(), history_,
                      static_cast<size_t>(std::max<int64_t>(num_tokens, 0)));
}

void Session::write_profile() {
  const auto lock = enter();
  const Turn turn = take_turn();
  executor_->write_profile();
}

}  // namespace emm
