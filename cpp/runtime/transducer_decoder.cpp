#include "runtime/transducer_decoder.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/clock.h"
#include "base/error.h"
#include "base/exclusive.h"

namespace emm {
namespace {

// The joint network is small: a hand-over may take as long as one call of it.
constexpr int64_t kFramesPerTurn = 16;

}  // namespace

TransducerDecoder::TransducerDecoder(std::unique_ptr<TransducerExecutor> executor)
    : executor_(std::move(executor)) {}

std::unique_lock<std::mutex> TransducerDecoder::enter() const {
  return lock_or_refuse(mutex_, "the model");
}

void TransducerDecoder::begin_request() {
  const auto lock = enter();
  is_cancelled_ = false;
  forget_clip();
  copied_before_ = executor_->copied_input_bytes();
  timings_ = {};
  timings_.start_ns = now_ns();
}

void TransducerDecoder::forget_clip() { num_frames_ = frame_ = symbols_on_frame_ = 0; }

std::unique_ptr<TransducerDecoder> TransducerDecoder::another() {
  const auto lock = enter();
  auto made = std::make_unique<TransducerDecoder>(executor_->another());
  made->priority_ = priority_.load();
  return made;
}

void TransducerDecoder::cancel() {
  is_cancelled_ = true;
  if (TurnQueue* const turns = executor_->turns()) turns->look();
}

void TransducerDecoder::begin_samples(const TensorView& samples, int64_t deadline_ns) {
  const auto lock = enter();
  forget_clip();
  const Turn turn = await_turn(deadline_ns);
  const ScopedTimer timer(timings_.encode_audio_ns);
  if (turn.has_come()) encode(executor_->preprocess(samples));
}

void TransducerDecoder::begin_features(const TransducerExecutor::Features& features,
                                       int64_t deadline_ns) {
  const auto lock = enter();
  forget_clip();
  const Turn turn = await_turn(deadline_ns);
  const ScopedTimer timer(timings_.encode_audio_ns);
  if (turn.has_come()) encode(features);
}

void TransducerDecoder::encode(const TransducerExecutor::Features& features) {
  if (is_cancelled_) return;
  const int64_t num_frames = executor_->encode(features);
  timings_.copied_input_bytes = executor_->copied_input_bytes() - copied_before_;
  executor_->restart();
  num_frames_ = num_frames;
  timings_.num_prompt_positions = num_frames;
  timings_.prompt_read_ns = now_ns() - timings_.start_ns;
}

std::optional<Symbol> TransducerDecoder::next(int64_t deadline_ns) {
  const auto lock = enter();
  const ScopedTimer timer(timings_.decode_ns);
  try {
    return find_symbol(deadline_ns);
  } catch (...) {
    frame_ = num_frames_;  // what the predictor made may be lost
    throw;
  }
}

void TransducerDecoder::write_profile() {
  const auto lock = enter();
  const Turn turn(executor_->turns(), kBeforeOthers);
  executor_->write_profile();
}

std::optional<Symbol> TransducerDecoder::find_symbol(int64_t deadline_ns) {
  while (frame_ < num_frames_ && !is_cancelled_) {
    const Turn turn = await_turn(deadline_ns);
    if (!turn.has_come()) break;
    if (const auto symbol = look_at_frames()) return symbol;
  }
  return std::nullopt;
}

// One turn: to the next symbol, or over so many frames without one.
std::optional<Symbol> TransducerDecoder::look_at_frames() {
  for (int64_t i = 0; i < kFramesPerTurn && frame_ < num_frames_ && !is_cancelled_; ++i) {
    const JointChoice choice = executor_->choose(frame_);
    ++timings_.num_decode_steps;
    const int64_t duration = duration_of(choice);
    if (choice.token == contract().blank_id) {
      move_on(std::max<int64_t>(1, duration));
      continue;
    }
    if (choice.token < 0) {
      throw Error(ErrorCode::kExecution,
                  "joint: expected a token, got " + std::to_string(choice.token));
    }
    const bool is_timed = !contract().durations.empty();
    const Symbol symbol{choice.token, frame_, is_timed ? duration : 1};
    executor_->read(choice.token);
    if (timings_.num_generated_tokens++ == 0)
      timings_.first_token_ns = now_ns() - timings_.start_ns;
    if (duration > 0 || ++symbols_on_frame_ >= contract().max_symbols_per_step)
      move_on(std::max<int64_t>(1, duration));
    return symbol;
  }
  return std::nullopt;
}

// Without durations, symbols stay on the frame until a blank leads away.
int64_t TransducerDecoder::duration_of(const JointChoice& choice) const {
  const std::vector<int64_t>& durations = contract().durations;
  if (durations.empty()) return 0;
  if (choice.duration_index >= 0 && choice.duration_index < static_cast<int64_t>(durations.size()))
    return durations[static_cast<size_t>(choice.duration_index)];
  throw Error(ErrorCode::kExecution, "joint: expected a duration index below " +
                                         std::to_string(durations.size()) + ", got " +
                                         std::to_string(choice.duration_index));
}

void TransducerDecoder::move_on(int64_t num_frames) {
  frame_ += num_frames;
  symbols_on_frame_ = 0;
}

}  // namespace emm
