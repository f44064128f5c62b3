// How much of a decoder's cache is in use, and which earlier positions it can go back to.
// Bookkeeping without tensors.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "model/contract.h"

namespace emm {

class KvPosition {
 public:
  explicit KvPosition(int64_t capacity, CacheLimits limits = {})
      : capacity_(capacity), limits_(limits) {}

  // The same positions under other limits.
  KvPosition under(int64_t capacity, CacheLimits limits) const {
    KvPosition other = *this;
    other.capacity_ = capacity;
    other.limits_ = limits;
    return other;
  }

  // As another one stood: so many positions in use, of so many written.
  KvPosition standing_at(int64_t used, int64_t written) const {
    KvPosition other = *this;
    other.used_ = used;
    other.written_ = written;
    return other;
  }

  int64_t used() const { return used_; }
  int64_t written() const { return written_; }
  int64_t capacity() const { return capacity_; }
  int64_t available() const { return limits_.is_unbounded ? capacity_ : capacity_ - used_; }

  // A call is about to write num_positions; until advance() says that it succeeded, it is not known
  // how many of them it has written.
  void begin_write(int64_t num_positions) { written_ = std::max(written_, used_ + num_positions); }
  void advance(int64_t num_positions) { used_ += num_positions; }

  // The lowest position, other than 0 after a reset, that the cache still holds all it needs for.
  int64_t lowest_rewind() const { return lowest_rewind(written_); }
  // False when a call failed in a way that cannot be gone over again.
  bool is_intact() const { return lowest_rewind() <= used_; }
  // Whether the way back to here stays open over num_positions more.
  bool stays_open(int64_t num_positions) const {
    return lowest_rewind(std::max(written_, used_ + num_positions)) <= used_;
  }

  // Entries at and above `position`, lowest_rewind() or more, count as unwritten from now on.
  void rewind(int64_t position) { used_ = position; }
  void reset() { used_ = written_ = 0; }

 private:
  int64_t lowest_rewind(int64_t written) const {
    if (limits_.is_recurrent) return written;
    if (written <= limits_.ring_rows || limits_.ring_rows == 0) return 0;
    return written - limits_.ring_window;
  }

  int64_t capacity_;
  CacheLimits limits_;
  int64_t used_ = 0;
  int64_t written_ = 0;  // one more than the highest position that any call has written
};

}  // namespace emm
