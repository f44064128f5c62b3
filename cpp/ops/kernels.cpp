#include "ops/kernels.h"

#include "ops/attention.h"
#include "ops/sdpa.h"
#include "ops/update_cache.h"

namespace emm::ops {

using executorch::ET_RUNTIME_NAMESPACE::Kernel;

const std::vector<Kernel>& llm_kernels() {
  // The names have to outlive every method: string literals do.
  static const std::vector<Kernel> kernels = {
      Kernel("llama::update_cache.out", update_cache),
      Kernel("llama::update_cache_with_indices.out", update_cache_with_indices),
      Kernel("llama::custom_sdpa.out", custom_sdpa),
      Kernel("llama::custom_quantized_sdpa.out", custom_quantized_sdpa),
      Kernel("llama::sdpa_with_kv_cache.out", sdpa_with_kv_cache),
  };
  return kernels;
}

const char* instruction_set() { return attention_isa(); }

}  // namespace emm::ops
