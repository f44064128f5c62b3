#include "et/arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "base/error.h"

namespace emm {
namespace {

constexpr size_t kPageBytes = 4096;

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

}  // namespace

Arena::Arena(const std::vector<int64_t>& buffer_bytes) {
  buffers_.reserve(buffer_bytes.size());
  for (const int64_t bytes : buffer_bytes) {
    const size_t size = static_cast<size_t>(std::max<int64_t>(bytes, 1));
    void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
      for (auto& mapped : buffers_) munmap(mapped.data(), mapped.size());
      throw Error(ErrorCode::kLoad,
                  "planned memory: cannot get " + std::to_string(size) + " bytes");
    }
    buffers_.emplace_back(static_cast<uint8_t*>(memory), size);
  }
  allocator_ = std::make_unique<executorch::runtime::HierarchicalAllocator>(
      executorch::runtime::Span<executorch::runtime::Span<uint8_t>>(buffers_.data(),
                                                                    buffers_.size()));
}

Arena::~Arena() {
  for (auto& buffer : buffers_) munmap(buffer.data(), buffer.size());
}

void Arena::remember_initial_state() {
  initial_pages_.clear();
  for (size_t b = 0; b < buffers_.size(); ++b) {
    for (size_t offset = 0; offset < buffers_[b].size(); offset += kPageBytes) {
      const size_t size = std::min(kPageBytes, buffers_[b].size() - offset);
      const uint8_t* page = buffers_[b].data() + offset;
      if (!is_zero(page, size)) initial_pages_.push_back({b, offset, {page, page + size}});
    }
  }
}

void Arena::reset() {
  for (auto& buffer : buffers_) {
#ifdef __linux__
    // Private anonymous pages read as zero afterwards, and untouched ones cost nothing.
    if (madvise(buffer.data(), buffer.size(), MADV_DONTNEED) == 0) continue;
#endif
    std::memset(buffer.data(), 0, buffer.size());
  }
  for (const Page& page : initial_pages_) {
    std::memcpy(buffers_[page.buffer].data() + page.offset, page.bytes.data(), page.bytes.size());
  }
}

}  // namespace emm
