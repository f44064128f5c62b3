// The key/value cache that a program leaves to its runner, as the operators take it.
#pragma once

#include <memory>
#include <vector>

#include "model/contract.h"
#include "ops/kv_cache.h"

namespace emm {

// For the contracts of a program; null where it needs none.
std::shared_ptr<ops::KvCache> make_outer_cache(const std::vector<Contract>& contracts);

}  // namespace emm
