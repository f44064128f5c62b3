// Who comes next where one call runs at a time: the first of those who wait, in the order of their
// priority and then of their arrival. A turn is handed over directly, so that whoever has had one
// comes behind all that wait by then. A wait ends early when a time has come or a flag is set.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <limits>
#include <map>
#include <mutex>
#include <utility>

#include "base/clock.h"

namespace emm {

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();         // of now_ns()
constexpr int64_t kBeforeOthers = std::numeric_limits<int64_t>::min();  // a priority

// What ends a wait before its turn.
struct Patience {
  const std::atomic<bool>* is_given_up = nullptr;  // whoever sets it calls look() then
  int64_t deadline_ns = kNever;                    // of now_ns()

  bool has_ended() const {
    return (is_given_up != nullptr && *is_given_up) ||
           (deadline_ns != kNever && now_ns() >= deadline_ns);
  }
};

class TurnQueue {
 public:
  // Waits for a turn; the lowest priority comes first. False, without one, where patience ended.
  bool enter(int64_t priority, const Patience& patience = {}) {
    std::unique_lock lock(mutex_);
    if (patience.has_ended()) return false;
    if (!is_taken_) {
      is_taken_ = true;
      return true;
    }
    Waiter waiter;
    const auto place = waiting_.emplace(std::pair(priority, next_ticket_++), &waiter).first;
    const auto is_over = [&] { return waiter.has_turn || patience.has_ended(); };
    if (patience.deadline_ns == kNever) {
      waiter.called.wait(lock, is_over);
    } else {
      const std::chrono::steady_clock::time_point deadline{
          std::chrono::duration_cast<std::chrono::steady_clock::duration>(
              std::chrono::nanoseconds(patience.deadline_ns))};
      waiter.called.wait_until(lock, deadline, is_over);
    }
    if (!waiter.has_turn) {
      waiting_.erase(place);
      return false;
    }
    if (!patience.has_ended()) return true;
    pass_on();
    return false;
  }

  // Takes a turn that nobody has; false, without waiting, where somebody has.
  bool try_enter() {
    const std::lock_guard lock(mutex_);
    return !std::exchange(is_taken_, true);
  }

  void leave() {
    const std::lock_guard lock(mutex_);
    pass_on();
  }

  // Whoever waits looks whether it was given up.
  void look() {
    const std::lock_guard lock(mutex_);
    for (const auto& [place, waiter] : waiting_) waiter->called.notify_one();
  }

  size_t num_waiting() const {
    const std::lock_guard lock(mutex_);
    return waiting_.size();
  }

 private:
  struct Waiter {
    std::condition_variable called;
    bool has_turn = false;
  };

  void pass_on() {
    if (waiting_.empty()) {
      is_taken_ = false;
      return;
    }
    Waiter& first = *waiting_.begin()->second;
    waiting_.erase(waiting_.begin());
    first.has_turn = true;
    first.called.notify_one();  // under the lock: the waiter ends with its wait
  }

  mutable std::mutex mutex_;
  bool is_taken_ = false;
  uint64_t next_ticket_ = 0;
  std::map<std::pair<int64_t, uint64_t>, Waiter*> waiting_;
};

// A turn from its beginning to its end; without a queue there is nobody to wait for.
class Turn {
 public:
  Turn(TurnQueue* queue, int64_t priority, const Patience& patience = {})
      : queue_(queue),
        has_come_(queue != nullptr ? queue->enter(priority, patience) : !patience.has_ended()) {}
  ~Turn() {
    if (queue_ != nullptr && has_come_) queue_->leave();
  }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

  // False where patience ended before.
  bool has_come() const { return has_come_; }

 private:
  TurnQueue* queue_;
  bool has_come_;
};

}  // namespace emm
