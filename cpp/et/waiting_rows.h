// Embeddings of a prompt that wait for what follows them, so that one call of the decoder reads
// them together: text, an image and text would be three.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "base/tensor_view.h"
#include "model/convert.h"

namespace emm {

class WaitingRows {
 public:
  // How many wait for what comes at `position`. A prompt that was taken back leaves rows that wait
  // for nothing.
  int64_t before(int64_t position) const { return position == end_ ? num_rows_ : 0; }

  // Appends (num_rows, size) as `dtype`, or begins with them; a call takes at most `limit`. False
  // where these would be too many, and then nothing has happened.
  bool add(const TensorView& rows, DType dtype, int64_t position, int64_t limit) {
    const int64_t waiting = before(position);
    const int64_t count = rows.shape[0];
    if (waiting + count > limit) return false;
    const TensorView given = convert(rows, dtype, converted_, "decoder input");
    const size_t begin = static_cast<size_t>(waiting) * (given.size_bytes() / count);
    bytes_.resize(begin + given.size_bytes());
    std::memcpy(bytes_.data() + begin, given.data, given.size_bytes());
    all_ = {bytes_.data(), dtype, {1, waiting + count, rows.shape[1]}};
    num_rows_ = waiting + count;
    end_ = position + count;
    limit_ = limit;
    return true;
  }

  int64_t limit() const { return limit_; }

  // (1, num_rows, size), valid until more are added.
  const TensorView& take() {
    clear();
    return all_;
  }
  void clear() {
    num_rows_ = 0;
    end_ = -1;
  }

 private:
  std::vector<uint8_t> bytes_;
  std::vector<uint8_t> converted_;
  TensorView all_;
  int64_t num_rows_ = 0;
  int64_t end_ = -1;
  int64_t limit_ = 0;
};

}  // namespace emm
