#include <doctest/doctest.h>

#include <cstring>

#include "et/arena.h"

using namespace emm;

TEST_CASE("an arena starts zeroed, returns to what loading wrote") {
  Arena arena({100000, 64});
  auto* bytes = static_cast<uint8_t*>(arena.allocator()->get_offset_address(0, 0, 100000).get());
  auto* small = static_cast<uint8_t*>(arena.allocator()->get_offset_address(1, 0, 64).get());
  CHECK(bytes[99999] == 0);
  bytes[5000] = 7;  // an initialised buffer
  arena.remember_initial_state();

  std::memset(bytes, 1, 100000);
  small[3] = 9;
  CHECK_FALSE(arena.allocator()->get_offset_address(1, 60, 8).ok());
}
