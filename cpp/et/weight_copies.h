// Copies of weights in large pages. A mapped file has small ones, whose addresses a decode step
// translates again and again while it reads all weights once. Equal bytes are copied once in a
// process, whoever loads them: another method, another model, the same model again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>

namespace emm {

class WeightCopies {
 public:
  // Keeps the bytes behind it alive.
  using Bytes = std::shared_ptr<const uint8_t>;

  static WeightCopies& instance();

  // They begin at a multiple of 64. Throws Error(kLoad) where there is no memory for them.
  Bytes copy(const uint8_t* from, size_t bytes);

  // Of all copies that somebody holds.
  size_t bytes_in_use();

 private:
  class Block;
  struct Copy {
    std::weak_ptr<Block> block;
    const uint8_t* data;
    size_t bytes;
  };

  void forget_freed();

  std::mutex mutex_;
  std::unordered_multimap<uint64_t, Copy> copies_;  // by a few of their bytes
  std::weak_ptr<Block> last_;                       // the one that is filled now
};

}  // namespace emm
