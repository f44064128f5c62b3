// How much of a KV cache is in use. Bookkeeping without tensors.
#pragma once

#include <cstdint>

namespace emm {

class KvPosition {
 public:
  explicit KvPosition(int64_t capacity) : capacity_(capacity) {}

  int64_t used() const { return used_; }
  int64_t capacity() const { return capacity_; }
  int64_t available() const { return capacity_ - used_; }

  void advance(int64_t num_positions) { used_ += num_positions; }
  // Entries at and above `position` count as unwritten from now on.
  void rewind(int64_t position) { used_ = position; }

 private:
  int64_t capacity_;
  int64_t used_ = 0;
};

}  // namespace emm
