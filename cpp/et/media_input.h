// An image or clip on its way from the caller to an encoder.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/tensor_view.h"

namespace emm {

class MediaInput {
 public:
  // The caller's values in the dtype that the encoder wants, valid until the next call. Bytes and
  // floats of an image stand for each other. Throws Error(kInput), also for NaN and infinity.
  TensorView take(const TensorView& values, DType wanted, const std::string& what, bool is_image);

  // Bytes that had to be converted so far.
  int64_t copied_bytes() const { return copied_bytes_; }

 private:
  std::vector<uint8_t> converted_;
  int64_t copied_bytes_ = 0;
};

// Error(kInput): the model takes no such input, or none of the shape that was given.
[[noreturn]] void refuse_media(const std::string& what);
[[noreturn]] void refuse_media(const std::string& what, const std::string& encoder,
                               const TensorView& wanted, const TensorView& given);

}  // namespace emm
