#include "ops/kernels.h"

#include "ops/copies.h"
#include "ops/cross_attend.h"
#include "ops/gated_delta.h"
#include "ops/hadamard.h"
#include "ops/isa.h"
#include "ops/kv_attend.h"
#include "ops/mean.h"
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
      Kernel("llama::fast_hadamard_transform.out", fast_hadamard_transform),
      Kernel("llama::gated_delta_rule.out", gated_delta_rule),
      Kernel("llama::channelwise_gated_delta_rule.out", channelwise_gated_delta_rule),
      Kernel("llama::fallback.out", fallback),
      Kernel("preprocess::tile_crop.out", tile_crop),
      Kernel("kvcache::update_and_attend.out", update_and_attend),
      Kernel("aten::mean.out", mean),
      Kernel("executorch_mm::cross_attend.out", cross_attend),
      Kernel("executorch_mm::cross_weights.out", cross_weights),
  };
  return kernels;
}

const char* instruction_set() { return isa_kernels().name; }

}  // namespace emm::ops
