// Who comes next where one call runs at a time.
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "base/turns.h"

using emm::now_ns;
using emm::Turn;
using emm::TurnQueue;

namespace {

void wait_for(const TurnQueue& queue, size_t num_waiting) {
  while (queue.num_waiting() < num_waiting)
    std::this_thread::sleep_for(std::chrono::microseconds(100));
}

}  // namespace

TEST_CASE("turns go by priority, and then in the order of arrival") {
  TurnQueue queue;
  std::string order;  // written by whoever has a turn
  std::vector<std::thread> threads;
  const auto come = [&](char name, int64_t priority) {
    threads.emplace_back([&queue, &order, name, priority] {
      const Turn turn(&queue, priority);
      order += name;
    });
    wait_for(queue, threads.size());
  };
  queue.enter(0);
  come('d', 1);
  come('b', 0);
  come('a', -1);
  come('c', 0);
  queue.leave();
  for (std::thread& thread : threads) thread.join();
  CHECK(order == "abcd");
}

TEST_CASE("who comes back at once goes behind those who wait") {
  TurnQueue queue;
  std::string order;
  queue.enter(0);
  std::vector<std::thread> threads;
  for (const char name : {'a', 'b', 'c'}) {
    threads.emplace_back([&queue, &order, name] {
      for (int i = 0; i < 3; ++i) {
        const Turn turn(&queue, 0);
        order += name;
        if (i < 2) {
          // Until the two others wait, so that the order does not hang on the system's.
          while (queue.num_waiting() < 2) std::this_thread::yield();
        }
      }
    });
    wait_for(queue, threads.size());
  }
  queue.leave();
  for (std::thread& thread : threads) thread.join();
  CHECK(order == "abcabcabc");
}

TEST_CASE("who is given up or out of time leaves the queue, and the others come as they stood") {
  TurnQueue queue;
  std::string order;
  std::atomic<bool> is_given_up{false};
  std::vector<std::thread> threads;
  const auto come = [&](char name, const emm::Patience& patience) {
    threads.emplace_back([&queue, &order, name, patience] {
      const Turn turn(&queue, 0, patience);
      if (turn.has_come()) order += name;
    });
    wait_for(queue, threads.size());
  };
  queue.enter(0);
  come('a', {&is_given_up, emm::kNever});
  come('b', {});
  come('c', {nullptr, now_ns() + 3'600'000'000'000});
  is_given_up = true;
  queue.look();
  threads[0].join();  // though the turn is still taken
  CHECK(queue.num_waiting() == 2);
  CHECK_FALSE(queue.enter(0, {nullptr, now_ns() + 10'000'000}));
  CHECK_FALSE(queue.enter(0, {nullptr, now_ns()}));
  CHECK_FALSE(queue.enter(0, {&is_given_up, emm::kNever}));
  CHECK(queue.num_waiting() == 2);
  queue.leave();
  threads[1].join();
  threads[2].join();
  CHECK(order == "bc");
  CHECK(queue.enter(0));
}

TEST_CASE("a turn that comes to one who was given up goes to the next") {
  TurnQueue queue;
  std::atomic<int> num_turns{0};
  for (int round = 0; round < 200; ++round) {
    std::atomic<bool> is_given_up{false};
    queue.enter(0);
    std::thread first([&] { Turn(&queue, 0, {&is_given_up, emm::kNever}); });
    wait_for(queue, 1);
    std::thread second([&] { num_turns += Turn(&queue, 0).has_come(); });
    wait_for(queue, 2);
    is_given_up = true;
    queue.leave();  // before the first one has looked
    queue.look();
    first.join();
    second.join();
  }
  CHECK(num_turns == 200);
}

TEST_CASE("without a queue only patience counts") {
  const std::atomic<bool> is_given_up{true};
  CHECK(Turn(nullptr, 0).has_come());
  CHECK_FALSE(Turn(nullptr, 0, {&is_given_up, emm::kNever}).has_come());
  CHECK_FALSE(Turn(nullptr, 0, {nullptr, 0}).has_come());
}

TEST_CASE("a turn is given back when a call throws") {
  TurnQueue queue;
  try {
    const Turn turn(&queue, 0);
    throw 1;
  } catch (int) {
  }
  const Turn again(&queue, 0);
  CHECK(queue.num_waiting() == 0);
}
