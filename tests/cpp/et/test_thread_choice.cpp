// Which models run on one thread, on the pool, or are tried on both.
#include <doctest/doctest.h>

#include "et/thread_choice.h"

using namespace emm;

TEST_CASE("size decides at both ends, and measuring in between") {
  CHECK(choose_threads(3u << 20, 4) == ThreadChoice::kOne);
  CHECK(choose_threads(20u << 20, 4) == ThreadChoice::kMeasure);
  CHECK(choose_threads(200u << 20, 4) == ThreadChoice::kPool);
}

TEST_CASE("with one core there is nothing to choose") {
  CHECK(choose_threads(20u << 20, 1) == ThreadChoice::kOne);
  CHECK(choose_threads(200u << 20, 1) == ThreadChoice::kOne);
}

TEST_CASE("at least one core is usable") { CHECK(usable_cores() >= 1); }
