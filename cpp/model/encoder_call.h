// Encoders that take something beside the values: masks of frames, positions of patches. What is
// shorter than a fixed size is filled up and marked as padding, and only rows that count come back.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/tensor_view.h"
#include "model/contract.h"

namespace emm {

// An image or clip as a caller has it.
struct MediaView {
  TensorView values;
  // Of patches: ids (patches, 2), column and row, -1 for padding. Of frames: (frames), false for
  // padding; all count where it is not given, which dtype kOther says.
  TensorView beside;
};

class EncoderCall {
 public:
  // One tensor for each input of an encoder with a mask or positions. Views into `given` where
  // nothing has to be changed; valid until the next call. Throws Error(kInput), starting with
  // `what`.
  std::vector<TensorView> inputs(const MethodSpec& encoder, const MediaView& given,
                                 const std::string& what);

  // (rows, hidden) of an encoder's outputs: those that count. Valid until the next call. Throws
  // Error(kExecution).
  TensorView rows(const MethodSpec& encoder, const std::vector<TensorView>& outputs);

  // Bytes that inputs() had to copy so far.
  int64_t copied_bytes() const { return copied_bytes_; }

 private:
  std::vector<uint8_t> values_;
  std::vector<uint8_t> padded_values_;
  std::vector<uint8_t> beside_;
  std::vector<uint8_t> rows_;
  // Of the last inputs(): what counts of how much.
  int64_t num_valid_ = 0;
  int64_t num_given_ = 0;
  int64_t copied_bytes_ = 0;
};

// Frames that an encoder with a mask is given for num_frames: where its length is dynamic it may
// still be bound to a pattern, which the bound that the exporter wrote tells. 0: too many.
int64_t padded_length(const TensorSpec& values, int64_t num_frames);

}  // namespace emm
