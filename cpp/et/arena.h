// The planned memory of one method, owned by us and lent to ExecuTorch. It holds the method's
// activations and its mutable buffers (KV cache, recurrent state), so resetting or copying the
// arena resets or copies the method's state.
#pragma once

#include <executorch/runtime/core/hierarchical_allocator.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

namespace emm {

// One planned buffer, an anonymous mapping of its own: it starts zeroed and takes room only once
// touched.
class PlannedMemory {
 public:
  struct Page {
    size_t offset;
    std::vector<uint8_t> bytes;
  };

  explicit PlannedMemory(int64_t bytes);
  ~PlannedMemory();
  PlannedMemory(const PlannedMemory&) = delete;
  PlannedMemory& operator=(const PlannedMemory&) = delete;

  executorch::runtime::Span<uint8_t> bytes() const { return bytes_; }

  // Remembers the pages that are not zero, so that reset() can bring them back.
  void remember_initial_state();
  const std::vector<Page>& initial_pages() const { return initial_pages_; }
  void reset();

  // Keeps a copy of the content and resets it, until bring_back() returns what differed from the
  // start: the rest may have got another one meanwhile.
  void set_aside();
  void bring_back();

 private:
  std::vector<Page> used_pages() const;
  bool clear_few();  // false: too much is in use
  void clear();
  void write(const std::vector<Page>& pages);

  executorch::runtime::Span<uint8_t> bytes_;
  std::vector<Page> initial_pages_;
  std::vector<Page> kept_pages_;
  std::vector<Page> replaced_pages_;  // initial_pages_ when those were kept
};

// Buffers that several methods have in common, by their number.
using SharedBuffers = std::map<size_t, std::shared_ptr<PlannedMemory>>;

class Arena {
 public:
  // buffer_bytes: one entry per planned buffer; those in `shared` are not made anew.
  explicit Arena(const std::vector<int64_t>& buffer_bytes, const SharedBuffers& shared = {});

  executorch::runtime::HierarchicalAllocator* allocator() { return &*allocator_; }

  // Call after a method is loaded and before any that shares memory with it has run: remembers what
  // loading wrote (initialised mutable buffers).
  void remember_initial_state();
  void reset();

  const std::vector<PlannedMemory::Page>& initial_pages(size_t buffer) const {
    return buffers_[buffer]->initial_pages();
  }

  // A byte of a buffer, which the caller has checked to be there.
  uint8_t* at(size_t buffer, uint64_t offset) const {
    return buffers_[buffer]->bytes().data() + offset;
  }

 private:
  std::vector<std::shared_ptr<PlannedMemory>> buffers_;
  std::vector<executorch::runtime::Span<uint8_t>> spans_;  // of these, as the allocator takes them
  std::unique_ptr<executorch::runtime::HierarchicalAllocator> allocator_;
};

}  // namespace emm
