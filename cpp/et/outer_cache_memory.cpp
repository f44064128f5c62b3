#include "et/outer_cache_memory.h"

#include <algorithm>

namespace emm {
namespace {

ops::Store to_store(DType dtype) {
  switch (dtype) {
    case DType::kFloat16:
      return ops::Store::kFloat16;
    case DType::kBFloat16:
      return ops::Store::kBFloat16;
    case DType::kInt8:
      return ops::Store::kInt8;
    default:
      return ops::Store::kFloat32;
  }
}

}  // namespace

std::shared_ptr<ops::KvCache> make_outer_cache(const std::vector<Contract>& contracts) {
  ops::KvCacheShape shape;
  for (const Contract& contract : contracts) {
    const OuterCache& cache = contract.outer_cache;
    if (!cache.is_used()) continue;
    shape.store = to_store(cache.dtype);
    shape.capacity = std::max(shape.capacity, contract.capacity);
    shape.max_write = std::max(shape.max_write, cache.max_write);
    if (!shape.layers.empty()) continue;  // they are the same for all
    for (const OuterCache::Layer& layer : cache.layers)
      shape.layers.push_back({layer.heads, layer.key_size, layer.value_size, layer.window});
  }
  return shape.layers.empty() ? nullptr : std::make_shared<ops::KvCache>(shape);
}

}  // namespace emm
