// Large pages for the weights that delegates pack while they load. A decode step reads all of them,
// and with 4 kB pages it spends a fifth of its time on address translation (measured with 70 MB of
// packed weights). Delegates allocate with malloc, which asks for no large pages, and take no
// allocator of ours; so the mappings that appear during a load are noted and advised later. It is a
// hint: where the system has no large pages, or uses them anyway, nothing changes. Linux only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace emm {

constexpr size_t kLargePage = size_t{2} << 20;

class LargePages {
 public:
  // Around a load: notes the private, writable, anonymous memory that is mapped between the calls.
  void begin_load();
  void end_load();

  // Asks for large pages in what was noted, once. Takes about 1 ms for each MB, which is why it
  // should wait until the first token is out.
  void advise();

 private:
  struct Range {
    uintptr_t begin;
    uintptr_t end;
  };
  static std::vector<Range> anonymous_ranges();
  void note(uintptr_t begin, uintptr_t end);

  std::vector<Range> before_;  // in ascending order
  std::vector<Range> noted_;   // whole large pages
};

}  // namespace emm
