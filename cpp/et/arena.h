// The planned memory of one method, owned by us and lent to ExecuTorch. It holds the method's
// activations and its mutable buffers (KV cache, recurrent state), so resetting or copying the
// arena resets or copies the method's state.
#pragma once

#include <executorch/runtime/core/hierarchical_allocator.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace emm {

class Arena {
 public:
  // buffer_bytes: one entry per planned buffer. Memory starts zeroed and takes room only once
  // touched.
  explicit Arena(const std::vector<int64_t>& buffer_bytes);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  executorch::runtime::HierarchicalAllocator* allocator() { return &*allocator_; }

  // Call once, after the method is loaded: remembers the pages that loading wrote (initialised
  // mutable buffers), so that reset() can bring them back.
  void remember_initial_state();
  void reset();

  // A byte of a buffer, which the caller has checked to be there.
  uint8_t* at(size_t buffer, uint64_t offset) const { return buffers_[buffer].data() + offset; }

 private:
  struct Page {
    size_t buffer;
    size_t offset;
    std::vector<uint8_t> bytes;
  };

  std::vector<executorch::runtime::Span<uint8_t>> buffers_;  // each its own anonymous mapping
  std::unique_ptr<executorch::runtime::HierarchicalAllocator> allocator_;
  std::vector<Page> initial_pages_;
};

}  // namespace emm
