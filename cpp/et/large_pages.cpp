#include "et/large_pages.h"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <string>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace emm {

#if defined(__linux__)

namespace {

#if !defined(MADV_COLLAPSE)
constexpr int MADV_COLLAPSE = 25;  // Linux 6.1; older kernels answer EINVAL
#endif

}  // namespace

void LargePages::begin_load() { before_ = anonymous_ranges(); }

void LargePages::end_load() {
  for (Range range : anonymous_ranges()) {
    for (const Range& old : before_) {
      if (old.end <= range.begin || old.begin >= range.end) continue;
      note(range.begin, old.begin);
      range.begin = std::min(range.end, old.end);
    }
    note(range.begin, range.end);
  }
  before_.clear();
}

void LargePages::note(uintptr_t begin, uintptr_t end) {
  begin = (begin + kLargePage - 1) / kLargePage * kLargePage;
  end = end / kLargePage * kLargePage;
  if (begin < end) noted_.push_back({begin, end});
}

void LargePages::advise() {
  for (const Range& range : noted_) {
    void* const address = reinterpret_cast<void*>(range.begin);
    // Collapsing works at once; the advice alone leaves it to a kernel thread that takes minutes.
    if (madvise(address, range.end - range.begin, MADV_HUGEPAGE) == 0)
      madvise(address, range.end - range.begin, MADV_COLLAPSE);
  }
  noted_.clear();
}

// Lines of /proc/self/maps: "begin-end perms offset device inode [name]"; anonymous memory has
// inode 0 and no name, but for the heap.
std::vector<LargePages::Range> LargePages::anonymous_ranges() {
  std::vector<Range> ranges;
  std::ifstream maps("/proc/self/maps");
  std::string line;
  while (std::getline(maps, line)) {
    unsigned long begin = 0;
    unsigned long end = 0;
    unsigned long inode = 0;
    char permissions[5] = {};
    char name[8] = {};
    const int fields = std::sscanf(line.c_str(), "%lx-%lx %4s %*s %*s %lu %7s", &begin, &end,
                                   permissions, &inode, name);
    const bool is_plain = fields == 4 || (fields == 5 && std::string(name) == "[heap]");
    if (is_plain && inode == 0 && std::string(permissions) == "rw-p")
      ranges.push_back({begin, end});
  }
  return ranges;
}

#else

void LargePages::begin_load() {}
void LargePages::end_load() {}
void LargePages::advise() {}

#endif

}  // namespace emm
