#include <doctest/doctest.h>

#include <cstring>
#include <memory>

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

TEST_CASE("memory that methods share keeps what they left while another brings its start") {
  const auto memory = std::make_shared<PlannedMemory>(9000);
  Arena first({64, 9000}, {{1, memory}});
  uint8_t* bytes = first.at(1, 0);
  bytes[8999] = 5;  // the first method's start
  first.remember_initial_state();
  bytes[10] = 7;  // what it leaves
  bytes[8999] = 0;

  memory->set_aside();
  CHECK(bytes[10] == 0);
  CHECK(bytes[8999] == 5);
  Arena second({64, 9000}, {{1, memory}});
  CHECK(second.at(1, 0) == bytes);
  CHECK(second.at(0, 0) != first.at(0, 0));
  second.at(1, 5000)[0] = 3;  // the second method's start
  second.remember_initial_state();
  memory->bring_back();

  CHECK(bytes[10] == 7);
  CHECK(bytes[8999] == 0);
  CHECK(bytes[5000] == 3);
  first.reset();
  CHECK(bytes[10] == 0);
  CHECK(bytes[8999] == 5);
  CHECK(bytes[5000] == 3);
}
