// Monotonic time in nanoseconds; the only clock the core reads.
#pragma once

#include <chrono>
#include <cstdint>

namespace emm {

inline int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// Adds the time between construction and destruction to a counter it does not own.
class ScopedTimer {
 public:
  explicit ScopedTimer(int64_t& total_ns) : total_ns_(total_ns), start_ns_(now_ns()) {}
  ~ScopedTimer() { total_ns_ += now_ns() - start_ns_; }
  ScopedTimer(const ScopedTimer&) = delete;
  ScopedTimer& operator=(const ScopedTimer&) = delete;

 private:
  int64_t& total_ns_;
  int64_t start_ns_;
};

}  // namespace emm
