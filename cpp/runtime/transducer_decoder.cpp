#include "runtime/transducer_decoder.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/clock.h"
#include "base/error.h"
#include "base/exclusive.h"
#include "model/convert.h"

namespace emm {
namespace {

// The joint network is small: a hand-over may take as long as one call of it.
constexpr int64_t kFramesPerTurn = 16;

}  // namespace

TransducerDecoder::TransducerDecoder(std::unique_ptr<TransducerExecutor> executor)
    : executor_(std::move(executor)) {
  forget_clip();
}

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

void TransducerDecoder::go_on(std::shared_ptr<TransducerStream> stream) {
  stream_ = std::move(stream);
  executor_->use(stream_->state);
}

void TransducerDecoder::forget_clip() {
  auto clip = std::make_shared<TransducerStream>();
  clip->state = executor_->new_state();
  go_on(std::move(clip));
}

std::shared_ptr<TransducerStream> TransducerDecoder::new_stream() const {
  const auto lock = enter();
  if (!contract().takes_chunks())
    throw Error(ErrorCode::kInput,
                "audio: expected an encoder that takes chunks, got one that "
                "takes whole clips");
  auto stream = std::make_shared<TransducerStream>();
  stream->state = executor_->new_state();
  return stream;
}

void TransducerDecoder::resume(std::shared_ptr<TransducerStream> stream) {
  const auto lock = enter();
  go_on(std::move(stream));
}

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

void TransducerDecoder::expect_whole_clips() const {
  if (contract().takes_chunks())
    throw Error(ErrorCode::kInput,
                "audio: expected the chunks of a stream, as the encoder takes them, got a clip");
}

std::optional<std::vector<float>> TransducerDecoder::features(const TensorView& samples,
                                                              int64_t deadline_ns) {
  const auto lock = enter();
  const Turn turn = await_turn(deadline_ns);
  const ScopedTimer timer(timings_.encode_audio_ns);
  if (!turn.has_come() || is_cancelled_) return std::nullopt;
  const auto [columns, length] = executor_->preprocess(samples);
  const int64_t num_columns = columns.shape.back();
  if (length < 0 || length > num_columns)
    throw Error(ErrorCode::kExecution, "preprocessor: it says that it made " +
                                           std::to_string(length) + " columns, but gave " +
                                           columns.describe());
  std::vector<uint8_t> buffer;
  const auto* const values =
      static_cast<const float*>(convert(columns, DType::kFloat32, buffer, "preprocessor").data);
  std::vector<float> made;
  for (int64_t row = 0; row < contract().num_bins; ++row)
    made.insert(made.end(), values + row * num_columns, values + row * num_columns + length);
  return made;
}

bool TransducerDecoder::hear(const TransducerExecutor::Features& chunk, int64_t deadline_ns) {
  const auto lock = enter();
  const Turn turn = await_turn(deadline_ns);
  const ScopedTimer timer(timings_.encode_audio_ns);
  if (!turn.has_come() || is_cancelled_) return false;
  encode(chunk);
  return true;
}

void TransducerDecoder::begin_samples(const TensorView& samples, int64_t deadline_ns) {
  const auto lock = enter();
  expect_whole_clips();
  forget_clip();
  const Turn turn = await_turn(deadline_ns);
  const ScopedTimer timer(timings_.encode_audio_ns);
  if (turn.has_come()) encode(executor_->preprocess(samples));
}

void TransducerDecoder::begin_features(const TransducerExecutor::Features& features,
                                       int64_t deadline_ns) {
  const auto lock = enter();
  expect_whole_clips();
  forget_clip();
  const Turn turn = await_turn(deadline_ns);
  const ScopedTimer timer(timings_.encode_audio_ns);
  if (turn.has_come()) encode(features);
}

void TransducerDecoder::encode(const TransducerExecutor::Features& features) {
  if (is_cancelled_) return;
  TransducerStream& stream = *stream_;
  if (!stream.is_begun) executor_->restart();
  stream.is_begun = true;
  const int64_t num_frames = executor_->encode(features);
  timings_.copied_input_bytes = executor_->copied_input_bytes() - copied_before_;
  stream.first_frame = stream.num_frames;
  stream.frame = std::max(stream.frame, stream.first_frame);
  stream.num_frames += num_frames;
  timings_.num_prompt_positions += num_frames;
  timings_.prompt_read_ns = now_ns() - timings_.start_ns;
}

std::optional<Symbol> TransducerDecoder::next(int64_t deadline_ns) {
  const auto lock = enter();
  const ScopedTimer timer(timings_.decode_ns);
  try {
    return find_symbol(deadline_ns);
  } catch (...) {
    stream_->frame = stream_->num_frames;  // what the predictor made may be lost
    throw;
  }
}

void TransducerDecoder::write_profile() {
  const auto lock = enter();
  const Turn turn(executor_->turns(), kBeforeOthers);
  executor_->write_profile();
}

std::optional<Symbol> TransducerDecoder::find_symbol(int64_t deadline_ns) {
  while (stream_->frame < stream_->num_frames && !is_cancelled_) {
    const Turn turn = await_turn(deadline_ns);
    if (!turn.has_come()) break;
    if (const auto symbol = look_at_frames()) return symbol;
  }
  return std::nullopt;
}

// One turn: to the next symbol, or over so many frames without one.
std::optional<Symbol> TransducerDecoder::look_at_frames() {
  TransducerStream& at = *stream_;
  for (int64_t i = 0; i < kFramesPerTurn && at.frame < at.num_frames && !is_cancelled_; ++i) {
    const JointChoice choice = executor_->choose(at.frame - at.first_frame);
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
    const Symbol symbol{choice.token, at.frame, is_timed ? duration : 1};
    executor_->read(choice.token);
    if (timings_.num_generated_tokens++ == 0)
      timings_.first_token_ns = now_ns() - timings_.start_ns;
    if (duration > 0 || ++at.symbols_on_frame >= contract().max_symbols_per_step)
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
  stream_->frame += num_frames;
  stream_->symbols_on_frame = 0;
}

}  // namespace emm
