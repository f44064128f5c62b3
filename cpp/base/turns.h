// Who comes next where one call runs at a time: the first of those who wait, in the order of their
// priority and then of their arrival. A turn is handed over directly, so that whoever has had one
// comes behind all that wait by then. A wait ends early when a time has come or a flag is set.
//
// Who waits with an errand need not have a turn: whoever has one may do it in the same call. Those
// who were in a call together come back at about the same time. The first to have the next turn
// waits for the others (gather), but never as long as a call takes: without that, one of them would
// call alone while the others line up behind it, again and again.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

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

// Somebody who comes for one step after the other. The queue's own, but for who holds it.
struct Regular {
  int64_t priority = 0;
  bool is_waiting = false;
  int num_missed = 0;     // times in a row that it was waited for and did not come
  int num_unawaited = 0;  // calls that still do not wait for it
};

// What somebody wants done who waits.
struct Errand {
  enum class State { kOpen, kTaken, kDone, kReturned };
  std::shared_ptr<Regular> regular;
  int64_t size = 0;  // what it takes of the room in a call
  State state = State::kOpen;
};

class TurnQueue {
  using Place = std::pair<int64_t, uint64_t>;

 public:
  enum class Outcome { kTurn, kDone, kEnded };

  // Waits for a turn; the lowest priority comes first. False, without one, where patience ended.
  bool enter(int64_t priority, const Patience& patience = {}) {
    return enter(priority, patience, nullptr) == Outcome::kTurn;
  }
  // The same; or the errand is done by another who has a turn. Patience does not end once somebody
  // has taken it along. One that is brought back undone waits on for a turn of its own.
  Outcome enter(int64_t priority, const Patience& patience, Errand* errand) {
    std::unique_lock lock(mutex_);
    if (errand != nullptr) errand->regular->priority = priority;
    const Place place(priority, next_ticket_++);
    while (true) {
      if (patience.has_ended()) return Outcome::kEnded;
      if (!is_taken_) {
        is_taken_ = true;
        return Outcome::kTurn;
      }
      const Outcome outcome = wait(lock, place, patience, errand);
      const bool is_undone = errand != nullptr && errand->state == Errand::State::kReturned;
      if (!is_undone) return outcome;
      errand = nullptr;
    }
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
    has_come_.notify_all();
  }

  size_t num_waiting() const {
    const std::lock_guard lock(mutex_);
    return waiting_.size();
  }

  // Those whose errands are done in a call. They wait until finish(), or get them back undone.
  class Company {
   public:
    explicit Company(TurnQueue& queue) : queue_(queue) {}
    ~Company() { bring_back(); }
    Company(const Company&) = delete;
    Company& operator=(const Company&) = delete;

    const std::vector<Errand*>& errands() const { return errands_; }
    void bring_back() { end(Errand::State::kReturned); }
    // The call has succeeded, and took that long; 0 where it was no measure for others.
    void finish(int64_t call_ns) {
      end(Errand::State::kDone);
      const std::lock_guard lock(queue_.mutex_);
      if (call_ns > 0) queue_.last_call_ns_ = call_ns;
    }

   private:
    friend class TurnQueue;
    void end(Errand::State state) {
      const std::lock_guard lock(queue_.mutex_);
      for (size_t i = 0; i < errands_.size(); ++i) {
        errands_[i]->state = state;
        called_[i]->notify_one();  // under the lock: the errand ends with its wait
      }
      errands_.clear();
    }

    TurnQueue& queue_;
    std::vector<Errand*> errands_;
    std::vector<std::condition_variable*> called_;
  };

  // For whoever has the turn: waits for those of the last call who are no less important and used
  // to come soon, until they are there, `room` is taken, patience has ended or somebody comes who
  // wants more than an errand done.
  void gather(const Errand& own, int64_t room, const Patience& patience) {
    constexpr int64_t kLongest = 10'000'000;
    std::unique_lock lock(mutex_);
    const int64_t longest = std::min(last_call_ns_ / 2, kLongest);
    const auto is_complete = [&] {
      return patience.has_ended() || is_room_taken(room) ||
             std::none_of(regulars_.begin(), regulars_.end(),
                          [&](const auto& regular) { return is_awaited(*regular, own); });
    };
    const int64_t end_ns = std::min(now_ns() + longest, patience.deadline_ns);
    const bool has_ended = !has_come_.wait_until(lock, time_point(end_ns), is_complete);
    for (const auto& regular : regulars_) {
      constexpr int kMostMissed = 6;
      if (regular->is_waiting) {
        regular->num_missed = regular->num_unawaited = 0;
      } else if (has_ended && is_awaited(*regular, own)) {
        regular->num_missed = std::min(regular->num_missed + 1, kMostMissed);
        regular->num_unawaited = 4 << regular->num_missed;
      } else if (regular->num_unawaited > 0) {
        --regular->num_unawaited;
      }
    }
  }

  // For whoever has the turn: the first errands of those who wait that `accepts` takes and that
  // find room in its call. `own` is what it would have had done itself.
  template <typename Accepts>
  void take_along(Company& company, const Errand* own, int64_t room, const Accepts& accepts) {
    const std::lock_guard lock(mutex_);
    regulars_.clear();
    if (own != nullptr) regulars_.push_back(own->regular);
    for (auto place = waiting_.begin(); place != waiting_.end();) {
      Errand* const errand = place->second->errand;
      if (errand == nullptr || errand->size > room || !accepts(*errand)) {
        ++place;
        continue;
      }
      room -= errand->size;
      errand->state = Errand::State::kTaken;
      regulars_.push_back(errand->regular);
      company.errands_.push_back(errand);
      company.called_.push_back(&place->second->called);
      place = waiting_.erase(place);
    }
  }

  // It does not come for the next call.
  void dismiss(const std::shared_ptr<Regular>& regular) {
    const std::lock_guard lock(mutex_);
    regulars_.erase(std::remove(regulars_.begin(), regulars_.end(), regular), regulars_.end());
    has_come_.notify_all();
  }

 private:
  struct Waiter {
    std::condition_variable called;
    Errand* errand = nullptr;
    bool has_turn = false;
  };

  static std::chrono::steady_clock::time_point time_point(int64_t ns) {
    return std::chrono::steady_clock::time_point(
        std::chrono::duration_cast<std::chrono::steady_clock::duration>(
            std::chrono::nanoseconds(ns)));
  }

  Outcome wait(std::unique_lock<std::mutex>& lock, const Place& place, const Patience& patience,
               Errand* errand) {
    Waiter waiter;
    waiter.errand = errand;
    waiting_.emplace(place, &waiter);
    if (errand != nullptr) errand->regular->is_waiting = true;
    has_come_.notify_all();
    const auto is_open = [&] { return errand == nullptr || errand->state == Errand::State::kOpen; };
    const auto is_over = [&] { return waiter.has_turn || !is_open() || patience.has_ended(); };
    if (patience.deadline_ns == kNever) {
      waiter.called.wait(lock, is_over);
    } else {
      waiter.called.wait_until(lock, time_point(patience.deadline_ns), is_over);
    }
    if (!is_open()) {
      waiter.called.wait(lock, [&] { return errand->state != Errand::State::kTaken; });
      errand->regular->is_waiting = false;
      return Outcome::kDone;
    }
    if (errand != nullptr) errand->regular->is_waiting = false;
    if (!waiter.has_turn) {
      waiting_.erase(place);
      return Outcome::kEnded;
    }
    if (!patience.has_ended()) return Outcome::kTurn;
    pass_on();
    return Outcome::kEnded;
  }

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

  bool is_room_taken(int64_t room) const {
    for (const auto& [place, waiter] : waiting_) {
      if (waiter->errand == nullptr) return true;
      room -= waiter->errand->size;
    }
    return room <= 0;
  }

  static bool is_awaited(const Regular& regular, const Errand& own) {
    return &regular != own.regular.get() && !regular.is_waiting && regular.num_unawaited == 0 &&
           regular.priority <= own.regular->priority;
  }

  mutable std::mutex mutex_;
  bool is_taken_ = false;
  uint64_t next_ticket_ = 0;
  std::map<Place, Waiter*> waiting_;
  std::condition_variable has_come_;                // for the one who gathers
  std::vector<std::shared_ptr<Regular>> regulars_;  // of the last call
  int64_t last_call_ns_ = 0;
};

// A turn from its beginning to its end; without a queue there is nobody to wait for.
class Turn {
 public:
  Turn(TurnQueue* queue, int64_t priority, const Patience& patience = {}, Errand* errand = nullptr)
      : queue_(queue), has_come_(enter(queue, priority, patience, errand)) {}
  ~Turn() {
    if (queue_ != nullptr && has_come_) queue_->leave();
  }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

  // False where patience ended before, or the errand has been done.
  bool has_come() const { return has_come_; }

 private:
  static bool enter(TurnQueue* queue, int64_t priority, const Patience& patience, Errand* errand) {
    if (queue == nullptr) return !patience.has_ended();
    return queue->enter(priority, patience, errand) == TurnQueue::Outcome::kTurn;
  }

  TurnQueue* queue_;
  bool has_come_;
};

}  // namespace emm
