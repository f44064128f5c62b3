// Speech models of the transducer kind (RNN-T, TDT): an encoder makes frames of a clip, a predictor
// reads the symbols so far, and a joint network chooses from one frame and the predictor's output
// the next symbol or a blank. What such a .pte promises, and what can be asked of it, free of
// ExecuTorch's types so that the decoding above it runs on a fake.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/error.h"
#include "base/tensor_view.h"
#include "base/turns.h"
#include "model/contract.h"

namespace emm {

struct TransducerContract : Signatures {
  int64_t blank_id = 0;
  // Frames that a duration index stands for; empty where the joint network gives none (RNN-T).
  std::vector<int64_t> durations;
  int64_t max_symbols_per_step = 10;  // on one frame
  int64_t sample_rate = 16000;
  double window_stride = 0.01;  // seconds from one column of features to the next
  int64_t subsampling = 1;      // columns of features for each frame
  int64_t num_bins = 0;         // rows of features
  int64_t max_columns = 0;      // columns of features that the encoder takes
  // An encoder that goes on from call to call takes max_columns each time: `history` that the call
  // before has had or, at the beginning, zeros; `chunk_columns` that its frames stand for; and what
  // it looks ahead. 0 columns: it hears whole clips.
  int64_t chunk_columns = 0;
  int64_t history = 0;
  std::vector<StateTensor> encoder_state;  // where it keeps what it remembers in buffers
  int64_t max_samples = 0;                 // that the preprocessor takes; 0 without one

  bool has_preprocessor() const { return max_samples > 0; }
  bool takes_chunks() const { return chunk_columns > 0; }
  double frame_seconds() const { return window_stride * static_cast<double>(subsampling); }
};

// What the joint network says of a frame.
struct JointChoice {
  int64_t token = 0;
  int64_t duration_index = 0;  // 0 for RNN-T
};

// What an executor remembers of one clip or stream, which whoever began it may keep.
class TransducerState {
 public:
  virtual ~TransducerState() = default;
};

// Holds the last frames of a clip or stream, what the encoder remembers of it, and the predictor's
// state. Several may share what was loaded: another() makes them. Not thread safe: its user
// serialises the calls, in turns where there are turns. Throws Error(kInput) for what the model
// does not take, Error(kExecution) when a method fails, and then has changed nothing but the
// frames.
class TransducerExecutor {
 public:
  virtual ~TransducerExecutor() = default;

  virtual const TransducerContract& contract() const = 0;

  // At the beginning of a clip or stream, which restart() makes ready.
  virtual std::shared_ptr<TransducerState> new_state() const = 0;
  // The calls below are for this one, from new_state() of this executor.
  virtual void use(std::shared_ptr<TransducerState> state) = 0;

  // Samples (num_samples) at contract().sample_rate to features, valid until the next call; their
  // length is the number of columns that are not padding. encode() comes in the same turn.
  struct Features {
    TensorView columns;  // (1, num_bins, num_columns)
    int64_t length = 0;
  };
  virtual Features preprocess(const TensorView& samples) = 0;

  // Runs the encoder, whose frames replace those before; one that takes chunks goes on behind the
  // chunk before. Returns how many there are.
  virtual int64_t encode(const Features& features) = 0;

  // The encoder remembers nothing, and the predictor has read nothing but the blank that stands for
  // the beginning.
  virtual void restart() = 0;
  // The predictor reads a symbol.
  virtual void read(int64_t token) = 0;

  // On one of the last frames, from 0.
  virtual JointChoice choose(int64_t frame) = 0;

  // Bytes of samples and features that had to be copied so far, as in Executor.
  virtual int64_t copied_input_bytes() const = 0;
  virtual int64_t num_threads() const = 0;

  // As in Executor.
  virtual void write_profile() {}
  virtual TurnQueue* turns() { return nullptr; }
  // For another clip with the same weights. Throws Error(kInput) where there can be but one.
  virtual std::unique_ptr<TransducerExecutor> another() {
    throw Error(ErrorCode::kInput,
                "the model hears one clip at a time where it runs: load it again for another");
  }
};

}  // namespace emm
