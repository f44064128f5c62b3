#include "et/weight_copies.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>

#include "base/error.h"
#include "et/large_pages.h"

namespace emm {
namespace {

constexpr size_t kAlign = 64;
// Of address space; memory is taken large page by large page as copies are written.
constexpr size_t kBlockBytes = size_t{32} << 20;

size_t rounded(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

// Of the length and of some bytes at three places: whether all are equal is looked at then.
uint64_t mark_of(const uint8_t* data, size_t bytes) {
  const size_t some = std::min<size_t>(bytes, 64);
  uint64_t mark = bytes;
  for (const size_t at : {size_t{0}, (bytes - some) / 2, bytes - some}) {
    const std::string_view text(reinterpret_cast<const char*>(data + at), some);
    mark = mark * 31 + std::hash<std::string_view>()(text);
  }
  return mark;
}

}  // namespace

class WeightCopies::Block {
 public:
  explicit Block(size_t bytes) : mapped_bytes_(rounded(bytes, kLargePage) + kLargePage) {
    mapped_ = mmap(nullptr, mapped_bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped_ == MAP_FAILED) refuse(bytes);
    const auto address = reinterpret_cast<uintptr_t>(mapped_);
    begin_ = static_cast<uint8_t*>(mapped_) + (rounded(address, kLargePage) - address);
    room_ = mapped_bytes_ - kLargePage;
#if defined(MADV_HUGEPAGE)
    madvise(begin_, room_, MADV_HUGEPAGE);  // a hint: without large pages it is a plain copy
#endif
  }
  ~Block() { munmap(mapped_, mapped_bytes_); }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  // Null where it is full. What is not taken cannot be read, so that nobody fills it with pages.
  uint8_t* take(size_t bytes) {
    if (bytes > room_ - used_) return nullptr;
    const size_t open = rounded(used_ + bytes, kLargePage);
    if (open > open_) {
      if (mprotect(begin_ + open_, open - open_, PROT_READ | PROT_WRITE) != 0) refuse(bytes);
      open_ = open;
    }
    uint8_t* const at = begin_ + used_;
    used_ = std::min(room_, rounded(used_ + bytes, kAlign));
    return at;
  }

 private:
  [[noreturn]] static void refuse(size_t bytes) {
    throw Error(ErrorCode::kLoad, "linear_weights: no memory for a copy of " +
                                      std::to_string(bytes) + " bytes of weights");
  }

  void* mapped_;
  size_t mapped_bytes_;
  uint8_t* begin_;  // of a large page
  size_t room_;
  size_t used_ = 0;
  size_t open_ = 0;
};

WeightCopies& WeightCopies::instance() {
  static WeightCopies copies;
  return copies;
}

WeightCopies::Bytes WeightCopies::copy(const uint8_t* from, size_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const uint64_t mark = mark_of(from, bytes);
  const auto [first, last] = copies_.equal_range(mark);
  for (auto at = first; at != last; ++at) {
    const Copy& known = at->second;
    const std::shared_ptr<Block> block = known.block.lock();
    if (block && known.bytes == bytes && std::memcmp(known.data, from, bytes) == 0)
      return {block, known.data};
  }
  std::shared_ptr<Block> block = last_.lock();
  uint8_t* to = block ? block->take(bytes) : nullptr;
  if (to == nullptr) {
    forget_freed();
    block = std::make_shared<Block>(std::max(bytes, kBlockBytes));
    to = block->take(bytes);
    last_ = block;
  }
  std::memcpy(to, from, bytes);
  copies_.insert({mark, {block, to, bytes}});
  return {block, to};
}

size_t WeightCopies::bytes_in_use() {
  const std::lock_guard<std::mutex> lock(mutex_);
  forget_freed();
  size_t bytes = 0;
  for (const auto& [mark, copy] : copies_) bytes += copy.bytes;
  return bytes;
}

void WeightCopies::forget_freed() {
  for (auto at = copies_.begin(); at != copies_.end();)
    at = at->second.block.expired() ? copies_.erase(at) : std::next(at);
}

}  // namespace emm
