// Who comes next where one call runs at a time: the first of those who wait, in the order of their
// priority and then of their arrival. A turn is handed over directly, so that whoever has had one
// comes behind all that wait by then.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <utility>

namespace emm {

class TurnQueue {
 public:
  // Waits for a turn; the lowest priority comes first.
  void enter(int64_t priority) {
    std::unique_lock lock(mutex_);
    if (!is_taken_) {
      is_taken_ = true;
      return;
    }
    Waiter waiter;
    waiting_.emplace(std::pair(priority, next_ticket_++), &waiter);
    waiter.called.wait(lock, [&] { return waiter.has_turn; });
  }

  void leave() {
    const std::lock_guard lock(mutex_);
    if (waiting_.empty()) {
      is_taken_ = false;
      return;
    }
    Waiter& first = *waiting_.begin()->second;
    waiting_.erase(waiting_.begin());
    first.has_turn = true;
    first.called.notify_one();  // under the lock: the waiter ends with its wait
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

  mutable std::mutex mutex_;
  bool is_taken_ = false;
  uint64_t next_ticket_ = 0;
  std::map<std::pair<int64_t, uint64_t>, Waiter*> waiting_;
};

// A turn from its beginning to its end; nothing where there is no queue.
class Turn {
 public:
  Turn(TurnQueue* queue, int64_t priority) : queue_(queue) {
    if (queue_ != nullptr) queue_->enter(priority);
  }
  ~Turn() {
    if (queue_ != nullptr) queue_->leave();
  }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

 private:
  TurnQueue* queue_;
};

}  // namespace emm
