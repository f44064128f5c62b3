// What a session goes back to or goes on with: earlier positions, snapshots, saved conversations;
// other decoders and weights.
#include <string>
#include <utility>

#include "base/error.h"
#include "runtime/session.h"

namespace emm {

void Session::reset() {
  const auto lock = enter();
  chunks_.clear();
  prompt_.clear();
  checkpoint_.state.reset();
  {
    const Turn turn(executor_->turns(), kBeforeOthers);  // for a moment
    executor_->reset_state();
  }
  ahead_.clear();
  has_logits_ = false;
  const std::lock_guard books(books_);
  position_.reset();
  cut_history(0);
  pending_tokens_.clear();
}

void Session::rewind(int64_t position) {
  const auto lock = enter();
  expect_idle();
  const int64_t lowest = position_.lowest_rewind();
  if (position < 0 || position > position_.used() || (position > 0 && position < lowest)) {
    std::string expected = lowest == 0 ? "" : "0";
    if (lowest <= position_.used()) {
      expected += (lowest == 0 ? "a position in " : " or a position in ") + std::to_string(lowest) +
                  ".." + std::to_string(position_.used());
    }
    if (lowest > 0) expected += " (the model keeps no other state; save() does)";
    throw Error(ErrorCode::kInput,
                "rewind: expected " + expected + ", got " + std::to_string(position));
  }
  if (position == 0) {
    const Turn turn = take_turn();
    executor_->reset_state();
  }
  ahead_.clear();
  has_logits_ = false;
  const std::lock_guard books(books_);
  if (position == 0)
    position_.reset();
  else
    position_.rewind(position);
  cut_history(static_cast<size_t>(position));
  pending_tokens_.clear();
}

void Session::use_method(const std::string& name) {
  const auto lock = enter();
  expect_idle();
  {
    const Turn turn = take_turn();
    executor_->use_method(name, position_.used());
  }
  ahead_.clear();
  has_logits_ = false;  // they are the other's
  const std::lock_guard books(books_);
  position_ = position_.under(contract().capacity, contract().cache);
}

void Session::load_adapter(const std::string& name, const AdapterFiles& files) {
  const auto lock = enter();
  expect_idle();
  {
    const Turn turn = take_turn();
    executor_->load_adapter(name, files);
  }
}

void Session::use_adapter(const std::string& name) {
  const auto lock = enter();
  expect_idle();
  expect_intact();
  {
    const Turn turn = take_turn();
    executor_->use_adapter(name, position_.used());
    const std::lock_guard books(books_);
    weights_ = executor_->weights_number(name);
  }
  ahead_.clear();
  has_logits_ = false;  // they are the other's
}

void Session::drop_adapter(const std::string& name) {
  const auto lock = enter();
  expect_idle();
  {
    const Turn turn = take_turn();
    executor_->drop_adapter(name);
  }
}

std::shared_ptr<const Session::Snapshot> Session::save() const {
  const auto lock = enter();
  expect_idle();
  expect_intact();
  auto snapshot =
      std::make_shared<Snapshot>(Snapshot{nullptr, position_, history_, {}, {}, {}, {}});
  {
    const Turn turn = take_turn();
    snapshot->state = executor_->save_state(position_.used());
  }
  snapshot->pending_tokens = pending_tokens_;
  snapshot->media = media_;
  snapshot->reader = reader_;
  snapshot->logits = copied_logits();
  return snapshot;
}

void Session::restore(const Snapshot& snapshot) {
  const auto lock = enter();
  expect_idle();
  {
    const Turn turn = take_turn();
    executor_->restore_state(*snapshot.state);
  }
  ahead_.clear();
  {
    const std::lock_guard books(books_);
    position_ = snapshot.position.under(contract().capacity, contract().cache);
    history_ = snapshot.history;
    media_ = snapshot.media;
    reader_ = snapshot.reader;
    pending_tokens_ = snapshot.pending_tokens;
  }
  adopt_logits(snapshot.logits);
}

void Session::load(const SavedConversation& saved) {
  const auto lock = enter();
  expect_idle();
  const KvPosition position = check_saved(saved, contract());
  std::vector<int64_t> history = saved.history;
  std::vector<int64_t> pending = saved.pending_tokens;
  std::vector<float> logits;
  if (saved.logits != nullptr) logits.assign(saved.logits, saved.logits + contract().vocab_size);
  {
    const Turn turn = take_turn();
    executor_->load_state(saved.position, {saved.state, saved.state_bytes});
  }
  ahead_.clear();
  adopt_logits(std::move(logits));
  const std::lock_guard books(books_);
  position_ = position;
  history_ = std::move(history);
  media_.clear();
  reader_.is_mixed = true;  // by whatever a file may hold
  pending_tokens_ = std::move(pending);
}

}  // namespace emm
