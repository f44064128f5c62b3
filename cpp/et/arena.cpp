#include "et/arena.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "base/error.h"

namespace emm {
namespace {

constexpr size_t kPageBytes = 4096;

// So much is cleared by writing: pages that are given back have to be taken again one by one, which
// costs a small encoder a tenth of its time.
constexpr size_t kFewBytes = size_t{1} << 20;
constexpr size_t kMostLookedAt = kFewBytes * 16;

bool is_zero(const uint8_t* bytes, size_t size) {
  uint64_t seen = 0;
  size_t i = 0;
  for (; i + sizeof(uint64_t) <= size; i += sizeof(uint64_t)) {
    uint64_t word;
    std::memcpy(&word, bytes + i, sizeof word);
    seen |= word;
  }
  for (; i < size; ++i) seen |= bytes[i];
  return seen == 0;
}

// Tells which pages of private anonymous memory nobody has touched: they are zero, and to look at
// them would cost more than all that is written there.
class Untouched {
 public:
  explicit Untouched(executorch::runtime::Span<uint8_t> memory) {
#ifdef __linux__
    const int file = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (file < 0) return;
    page_bytes_ = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    entries_.resize((memory.size() + page_bytes_ - 1) / page_bytes_);
    const size_t wanted = entries_.size() * sizeof(uint64_t);
    const size_t first = reinterpret_cast<uintptr_t>(memory.data()) / page_bytes_;
    const ssize_t got =
        pread(file, entries_.data(), wanted, static_cast<off_t>(first * sizeof(uint64_t)));
    close(file);
    if (got < 0 || static_cast<size_t>(got) != wanted) entries_.clear();
#endif
  }
  bool at(size_t offset) const {
    // In memory, or swapped out.
    return !entries_.empty() && (entries_[offset / page_bytes_] >> 62) == 0;
  }

 private:
  size_t page_bytes_ = kPageBytes;
  std::vector<uint64_t> entries_;  // empty where the system does not tell
};

// Where the pages begin that may hold something.
std::vector<size_t> touched_pages(executorch::runtime::Span<uint8_t> memory) {
  std::vector<size_t> touched;
  const Untouched untouched(memory);
  for (size_t offset = 0; offset < memory.size(); offset += kPageBytes) {
    if (!untouched.at(offset)) touched.push_back(offset);
  }
  return touched;
}

}  // namespace

PlannedMemory::PlannedMemory(int64_t bytes) {
  const size_t size = static_cast<size_t>(std::max<int64_t>(bytes, 1));
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    throw Error(ErrorCode::kLoad, "planned memory: cannot get " + std::to_string(size) + " bytes");
  }
  bytes_ = {static_cast<uint8_t*>(memory), size};
}

PlannedMemory::~PlannedMemory() { munmap(bytes_.data(), bytes_.size()); }

std::vector<PlannedMemory::Page> PlannedMemory::used_pages() const {
  std::vector<Page> pages;
  for (const size_t offset : touched_pages(bytes_)) {
    const size_t size = std::min(kPageBytes, bytes_.size() - offset);
    const uint8_t* page = bytes_.data() + offset;
    if (!is_zero(page, size)) pages.push_back({offset, {page, page + size}});
  }
  return pages;
}

bool PlannedMemory::clear_few() {
  if (bytes_.size() > kMostLookedAt) return false;
  const std::vector<size_t> touched = touched_pages(bytes_);
  if (touched.size() > kFewBytes / kPageBytes) return false;
  for (const size_t offset : touched)
    std::memset(bytes_.data() + offset, 0, std::min(kPageBytes, bytes_.size() - offset));
  return true;
}

void PlannedMemory::clear() {
  if (clear_few()) return;
#ifdef __linux__
  // Private anonymous pages read as zero afterwards, and untouched ones cost nothing.
  if (madvise(bytes_.data(), bytes_.size(), MADV_DONTNEED) == 0) return;
#endif
  std::memset(bytes_.data(), 0, bytes_.size());
}

void PlannedMemory::write(const std::vector<Page>& pages) {
  for (const Page& page : pages)
    std::memcpy(bytes_.data() + page.offset, page.bytes.data(), page.bytes.size());
}

void PlannedMemory::remember_initial_state() { initial_pages_ = used_pages(); }

void PlannedMemory::reset() {
  clear();
  write(initial_pages_);
}

void PlannedMemory::set_aside() {
  kept_pages_ = used_pages();
  replaced_pages_ = initial_pages_;
  reset();
}

void PlannedMemory::bring_back() {
  struct Both {
    const std::vector<uint8_t>* kept = nullptr;
    const std::vector<uint8_t>* initial = nullptr;
  };
  std::map<size_t, Both> pages;
  for (const Page& page : kept_pages_) pages[page.offset].kept = &page.bytes;
  for (const Page& page : replaced_pages_) pages[page.offset].initial = &page.bytes;
  for (const auto& [offset, page] : pages) {
    const size_t size = page.kept != nullptr ? page.kept->size() : page.initial->size();
    for (size_t i = 0; i < size; ++i) {
      const uint8_t kept = page.kept != nullptr ? (*page.kept)[i] : 0;
      const uint8_t initial = page.initial != nullptr ? (*page.initial)[i] : 0;
      if (kept != initial) bytes_.data()[offset + i] = kept;
    }
  }
  kept_pages_.clear();
  replaced_pages_.clear();
}

Arena::Arena(const std::vector<int64_t>& buffer_bytes, const SharedBuffers& shared) {
  for (size_t i = 0; i < buffer_bytes.size(); ++i) {
    const auto found = shared.find(i);
    buffers_.push_back(found != shared.end() ? found->second
                                             : std::make_shared<PlannedMemory>(buffer_bytes[i]));
    spans_.push_back(buffers_[i]->bytes());
  }
  allocator_ = std::make_unique<executorch::runtime::HierarchicalAllocator>(
      executorch::runtime::Span<executorch::runtime::Span<uint8_t>>(spans_.data(), spans_.size()));
}

void Arena::remember_initial_state() {
  for (const auto& buffer : buffers_) buffer->remember_initial_state();
}

void Arena::reset() {
  for (const auto& buffer : buffers_) buffer->reset();
}

}  // namespace emm
