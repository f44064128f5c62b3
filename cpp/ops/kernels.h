// The LLM operators that exported models call (llama::*, preprocess::tile_crop,
// kvcache::update_and_attend and our own executorch_mm::*), without torch. The list is handed to
// Module::load_method for one method at a time and never registered globally: a global registration
// would abort the process as soon as upstream's own custom_ops library is imported beside us.
#pragma once

#include <vector>

#include <executorch/runtime/kernel/operator_registry.h>

namespace emm::ops {

// The kernels, built once and kept for the life of the process. Every one of them answers bad
// arguments with one Error-level log line that names the operator and the shapes, and fails its
// context; none throws or aborts.
const std::vector<executorch::ET_RUNTIME_NAMESPACE::Kernel>& llm_kernels();

// While it lives, attention in programs that this thread calls gives each token of a call the bits
// that it has in a call of its own, for a little more time.
class RowsAlone {
 public:
  explicit RowsAlone(bool is_wanted);
  ~RowsAlone();
  RowsAlone(const RowsAlone&) = delete;
  RowsAlone& operator=(const RowsAlone&) = delete;

 private:
  bool before_;
};

// The instruction set that the attention kernels run with on this machine ("avx512", "avx2",
// "baseline" or "neon").
const char* instruction_set();

}  // namespace emm::ops
