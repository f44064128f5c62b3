// Who comes next where one call runs at a time.
#include <doctest/doctest.h>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "base/turns.h"

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
