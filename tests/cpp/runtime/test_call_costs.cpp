// What calls of several tokens are taken to cost.
#include <doctest/doctest.h>

#include <thread>
#include <vector>

#include "runtime/call_costs.h"

using emm::CallCosts;

TEST_CASE("costs begin with an estimate that grows with the tokens") {
  const CallCosts costs;
  CHECK(costs.of(1) == 1.0);
  for (int64_t tokens = 2; tokens < 40; ++tokens) CHECK(costs.of(tokens) >= costs.of(tokens - 1));
}

TEST_CASE("what is measured takes the place of the estimate, also beside the measured sizes") {
  CallCosts costs;
  costs.add(8, 1'000);  // nothing to compare it with
  CHECK(costs.of(8) == CallCosts().of(8));
  for (int i = 0; i < 60; ++i) {
    costs.add(1, 1'000);
    costs.add(4, 1'200);
    costs.add(12, 1'600);
  }
  CHECK(costs.of(4) == doctest::Approx(1.2).epsilon(0.01));
  CHECK(costs.of(12) == doctest::Approx(1.6).epsilon(0.01));
  CHECK(costs.of(8) > 1.2);
  CHECK(costs.of(8) < 1.6);
  CHECK(costs.of(2) >= 1.0);
  CHECK(costs.of(2) < 1.2);
}

TEST_CASE("one call that was interrupted changes little, and fixed costs do not change") {
  CallCosts costs;
  for (int i = 0; i < 60; ++i) costs.add(1, 1'000);
  const double before = costs.of(5);
  costs.add(5, 1'000'000);
  CHECK(costs.of(5) <= 2 * before);
  costs.add(1, 1'000'000);
  CHECK(costs.one_ns() <= 1'200);
  costs.fix();
  CHECK(costs.of(5) == before);
  costs.add(5, 1'000);
  CHECK(costs.of(5) == before);
}

TEST_CASE("sessions in several threads add to the same costs") {
  CallCosts costs;
  std::vector<std::thread> threads;
  for (int64_t i = 0; i < 4; ++i) {
    threads.emplace_back([&costs, i] {
      for (int round = 0; round < 2000; ++round) {
        costs.add(1, 1'000);
        costs.add(i + 2, 1'500);
        CHECK(costs.of(i + 3) >= 1.0);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(costs.one_ns() == doctest::Approx(1'000));
}
