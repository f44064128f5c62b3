// What sessions over one model have in common, and what one takes over from another.
#include <algorithm>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/exclusive.h"
#include "runtime/session.h"

namespace emm {

std::unique_ptr<Session> Session::another() {
  const auto lock = enter();
  expect_idle();
  own_outputs();
  const Turn turn = take_turn();
  return std::unique_ptr<Session>(new Session(executor_->another(), *this));
}

std::unique_ptr<Session> Session::fork(bool keeps_logits) {
  const auto lock = enter();
  expect_idle();
  expect_intact();
  own_outputs();
  std::unique_ptr<Executor> executor;
  {
    const Turn turn(executor_->turns(), kBeforeOthers);  // for a moment
    executor = executor_->fork(position_.used());
  }
  std::unique_ptr<Session> child(new Session(std::move(executor), *this));
  child->position_ = position_;
  child->history_ = history_;
  child->pending_tokens_ = pending_tokens_;
  child->timings_ = timings_;
  child->media_ = media_;
  child->reader_ = reader_;
  child->reads_alone_ = reads_alone_;
  child->has_logits_ = has_logits_ && keeps_logits;
  if (child->has_logits_) {
    child->logits_ = logits_;
    child->own_logits();
  }
  return child;
}

void Session::go_on_from(Session& other, std::optional<int64_t> wanted) {
  if (&other == this) throw Error(ErrorCode::kInput, "expected another conversation, got this one");
  // That one first and without refusal: several may go on from it at a time.
  const std::lock_guard their_lock(other.mutex_);
  const auto lock = enter();
  expect_idle();
  other.expect_idle();
  other.expect_intact();
  const int64_t used = other.position_.used();
  const int64_t lowest = std::max<int64_t>(1, other.position_.lowest_rewind());
  const int64_t position = wanted.value_or(used);
  if (wanted && (position < lowest || position > used)) {
    throw Error(ErrorCode::kInput, "position: expected " + std::to_string(lowest) + ".." +
                                       std::to_string(used) + ", got " + std::to_string(position));
  }
  std::vector<int64_t> history(other.history_.begin(), other.history_.begin() + position);
  std::vector<int64_t> pending;
  if (!wanted) pending = other.pending_tokens_;
  std::vector<MediaSpan> media = other.media_;
  std::vector<float> logits;
  if (position == used) logits = other.copied_logits();
  {
    const Turn turn(executor_->turns(), kBeforeOthers);  // for a moment
    executor_->go_on_from(*other.executor_, position, used);
  }
  ahead_.clear();
  adopt_logits(std::move(logits));
  const std::lock_guard books(books_);
  position_ = other.position_;
  position_.rewind(position);
  history_ = std::move(history);
  media_ = std::move(media);
  cut_history(history_.size());
  reader_ = other.reader_;
  pending_tokens_ = std::move(pending);
}

std::vector<MemoryUse> Session::memory() const {
  const std::lock_guard lock(mutex_);
  std::vector<MemoryUse> uses = executor_->memory(position_.used());
  const size_t bytes = history_.size() * sizeof(int64_t) + own_logits_.size() * sizeof(float);
  if (bytes > 0) uses.push_back({this, static_cast<int64_t>(bytes)});
  return uses;
}

std::optional<std::string> Session::units() const {
  const std::lock_guard books(books_);
  if (position_.used() > 0 && !is_read_by_this()) return std::nullopt;
  return content_units(history_, media_);
}

bool Session::is_read_by_this() const {
  return !reader_.is_mixed && reader_.weights == weights_ &&
         reader_.decoder == contract().decoder_name;
}

std::vector<MediaSpan> Session::media() const {
  const std::lock_guard books(books_);
  return media_;
}

int64_t Session::lowest_rewind() const {
  const std::lock_guard books(books_);
  return std::max<int64_t>(1, position_.lowest_rewind());
}

int64_t Session::written() const {
  const std::lock_guard books(books_);
  return position_.written();
}

int64_t Session::weights_number(const std::string& adapter) const {
  const auto lock = enter();
  const Turn turn = take_turn();
  return executor_->weights_number(adapter);
}

void Session::keep_encoded(std::shared_ptr<EncoderCache> cache) {
  const auto lock = enter();
  encoder_cache_ = std::move(cache);
}

}  // namespace emm
