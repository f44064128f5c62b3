#include "ops/scratch.h"

#include <cstddef>
#include <cstdlib>

namespace emm::ops {
namespace {

class Scratch {
 public:
  Scratch() = default;
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { std::free(data_); }

  float* reserve(int64_t floats) {
    if (floats > floats_) {
      constexpr size_t kAlign = 64;
      const size_t bytes = (static_cast<size_t>(floats) * sizeof(float) + kAlign - 1) / kAlign * kAlign;
      std::free(data_);
      data_ = std::aligned_alloc(kAlign, bytes);
      floats_ = data_ == nullptr ? 0 : floats;
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
