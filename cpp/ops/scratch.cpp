#include "ops/scratch.h"

#include <cstddef>
#include <cstdlib>

namespace emm::ops {
namespace {

constexpr size_t kAlign = 64;
constexpr int64_t kLeast = 1 << 16;

class Scratch {
 public:
  Scratch() = default;
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { std::free(data_); }

  float* reserve(int64_t floats) {
    if (floats > floats_) {
      int64_t rounded =
          kLeast;  // to powers of two, so that a growing context seldom comes back for more
      while (rounded < floats) {
        rounded *= 2;
      }
      std::free(data_);
      data_ = std::aligned_alloc(kAlign, static_cast<size_t>(rounded) * sizeof(float));
      floats_ = data_ == nullptr ? 0 : rounded;
      ++growths_;
    }
    return static_cast<float*>(data_);
  }
  int64_t growths() const { return growths_; }

 private:
  void* data_ = nullptr;
  int64_t floats_ = 0;
  int64_t growths_ = 0;
};

thread_local Scratch scratch;

}  // namespace

float* scratch_memory(int64_t floats) { return scratch.reserve(floats); }

int64_t scratch_growths() { return scratch.growths(); }

}  // namespace emm::ops
