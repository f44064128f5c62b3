// Memory that appears during a load is advised, and only that.
#if defined(__linux__)
#include <doctest/doctest.h>
#include <sys/mman.h>

#include <cstdint>

#include "advised_memory.h"
#include "et/large_pages.h"

using namespace emm;

namespace {

constexpr size_t kBytes = 8u << 20;

uint8_t* map_memory() {
  void* memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  REQUIRE(memory != MAP_FAILED);
  return static_cast<uint8_t*>(memory);
}

}  // namespace

TEST_CASE("memory mapped during a load is advised, memory from before is not") {
  if (!has_large_pages()) return;
  uint8_t* const before = map_memory();
  before[0] = 1;
  LargePages pages;
  pages.begin_load();
  uint8_t* const during = map_memory();
  for (size_t i = 0; i < kBytes; i += 4096) during[i] = static_cast<uint8_t>(i / 4096);
  pages.end_load();
  pages.advise();
  CHECK(is_advised(during + kBytes / 2));
  CHECK_FALSE(is_advised(before + kBytes / 2));
  for (size_t i = 0; i < kBytes; i += 4096) REQUIRE(during[i] == static_cast<uint8_t>(i / 4096));
  munmap(before, kBytes);
  munmap(during, kBytes);
}

TEST_CASE("memory that is gone again does no harm") {
  LargePages pages;
  pages.begin_load();
  uint8_t* const during = map_memory();
  pages.end_load();
  munmap(during, kBytes);
  pages.advise();
}
#endif
