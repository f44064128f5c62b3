// Speech to symbols with a transducer, the likeliest at each step: begin_*() runs the encoder over
// a clip, or hear() over the next chunk of a stream, and next() gives one symbol after the other.
// Several may share what was loaded (another());
// their calls of the model then take turns. Serves one thread at a time; a second one gets
// Error(kBusy). Any thread may cancel().
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "model/transducer.h"
#include "runtime/request_timings.h"

namespace emm {

struct Symbol {
  int64_t token = 0;
  int64_t frame = 0;     // of the encoder, from 0
  int64_t duration = 0;  // frames that the model gives it, perhaps none; always 1 for RNN-T
};

// How far a clip or stream has been heard. Keeps nothing of the model.
struct TransducerStream {
  std::shared_ptr<TransducerState> state;
  bool is_begun = false;
  int64_t first_frame = 0;       // of the last ones, behind those of the chunks before
  int64_t num_frames = 0;        // so far
  int64_t frame = 0;             // to be looked at next; num_frames or more: none
  int64_t symbols_on_frame = 0;  // that did not lead away from it
};

class TransducerDecoder {
 public:
  explicit TransducerDecoder(std::unique_ptr<TransducerExecutor> executor);
  // For other clips, with the same weights. Throws Error(kInput) where the model hears but one.
  std::unique_ptr<TransducerDecoder> another();

  // Of those that wait for the model the one with the lowest goes first.
  void set_priority(int64_t priority) { priority_ = priority; }
  int64_t priority() const { return priority_; }

  const TransducerContract& contract() const { return executor_->contract(); }
  int64_t num_threads() const { return executor_->num_threads(); }
  // Of the clip; times since begin_request().
  const RequestTimings& timings() const { return timings_; }
  int64_t num_frames() const { return stream_->num_frames; }

  // Starts the clocks and forgets the clip before and its cancellation.
  void begin_request();
  // From any thread: the running request ends before its next call of the model, and at once where
  // it waits for its turn.
  void cancel();
  bool is_cancelled() const { return is_cancelled_; }

  // One or the other, once after begin_request(). Throws Error(kInput) for a clip that the model
  // does not take, which a shorter one may follow. Nothing is heard where the deadline (of
  // now_ns()) comes before its turn.
  void begin_samples(const TensorView& samples, int64_t deadline_ns = kNever);
  void begin_features(const TransducerExecutor::Features& features, int64_t deadline_ns = kNever);

  // For an encoder that takes chunks; Error(kInput) where it takes whole clips.
  std::shared_ptr<TransducerStream> new_stream() const;
  // After begin_request(): hear() and next() go on with this stream, of this decoder.
  void resume(std::shared_ptr<TransducerStream> stream);
  // Copies of what the preprocessor makes of samples: floats (1, num_bins, columns) without
  // padding, none where the deadline or a cancellation comes before its turn.
  std::optional<std::vector<float>> features(const TensorView& samples, int64_t deadline_ns);
  // The next chunk of max_columns, of which the first `length` are no padding; frames of the one
  // before that next() has not got to are left out. False where it was not heard, as above.
  bool hear(const TransducerExecutor::Features& chunk, int64_t deadline_ns = kNever);

  // The next symbol, or nothing at the end of the clip, after cancel(), after an error, and where
  // the deadline comes before its turn.
  std::optional<Symbol> next(int64_t deadline_ns = kNever);

  // Ends the profile that was asked for when the model was loaded and writes its file.
  void write_profile();

 private:
  std::unique_lock<std::mutex> enter() const;
  void forget_clip();
  void expect_whole_clips() const;
  void go_on(std::shared_ptr<TransducerStream> stream);
  Turn await_turn(int64_t deadline_ns) const {
    return Turn(executor_->turns(), priority_, {&is_cancelled_, deadline_ns});
  }
  void encode(const TransducerExecutor::Features& features);
  std::optional<Symbol> find_symbol(int64_t deadline_ns);
  std::optional<Symbol> look_at_frames();
  int64_t duration_of(const JointChoice& choice) const;
  void move_on(int64_t num_frames);

  std::unique_ptr<TransducerExecutor> executor_;
  std::shared_ptr<TransducerStream> stream_;  // the clip, or the stream that goes on
  int64_t copied_before_ = 0;                 // bytes, at the request's beginning
  RequestTimings timings_;
  std::atomic<bool> is_cancelled_{false};
  std::atomic<int64_t> priority_{0};
  mutable std::mutex mutex_;
};

}  // namespace emm
