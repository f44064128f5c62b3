#include <sys/resource.h>
#include <unistd.h>

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

#ifdef __linux__
namespace {
long page_faults() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_minflt;
}
}  // namespace

TEST_CASE("the start of a large memory is found without a look at pages that nobody has touched") {
  constexpr size_t kBytes = size_t{64} << 20;
  Arena arena({static_cast<int64_t>(kBytes)});
  const std::vector<size_t> places = {0, 5 * 4096 + 4095, kBytes / 2, kBytes - 1};
  for (const size_t place : places) *arena.at(0, place) = 7;
  const uint8_t looked_at = *arena.at(0, kBytes / 4);  // touched, and still zero
  CHECK(looked_at == 0);

  const long before = page_faults();
  arena.remember_initial_state();
  if (access("/proc/self/pagemap", R_OK) == 0) CHECK(page_faults() - before < 1000);

  const auto& pages = arena.initial_pages(0);
  REQUIRE(pages.size() == places.size());
  for (size_t i = 0; i < places.size(); ++i) {
    CHECK(pages[i].offset == places[i] / 4096 * 4096);
    CHECK(pages[i].bytes[places[i] % 4096] == 7);
    *arena.at(0, places[i]) = 1;
  }
  arena.reset();
  for (const size_t place : places) CHECK(*arena.at(0, place) == 7);
}
#endif
