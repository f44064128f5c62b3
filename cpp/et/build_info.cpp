#include "et/build_info.h"

#include <executorch/runtime/backend/interface.h>
#include <executorch/runtime/kernel/operator_registry.h>

#include <algorithm>

#include "et/linear_backend.h"
#include "et/linear_choice.h"
#include "ops/kernels.h"

namespace emm {
namespace {

template <typename Kernels>
std::vector<std::string> names_of(const Kernels& kernels) {
  std::vector<std::string> names;
  for (const auto& kernel : kernels) names.emplace_back(kernel.name_);
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

}  // namespace

BuildInfo build_info() {
  namespace et = executorch::ET_RUNTIME_NAMESPACE;
  BuildInfo info;
#if defined(__clang__)
  info.compiler = "clang " __clang_version__;
#else
  info.compiler = "gcc " __VERSION__;
#endif
  info.instruction_set = ops::instruction_set();
  info.linear_kernels = linear_kernel_names();
  info.linear_kernels_on_request = linear_kernels_on_request();
  info.own_operators = names_of(ops::llm_kernels());
  info.sdk_operators = names_of(et::get_registered_kernels());
  for (size_t i = 0; i < et::get_num_registered_backends(); ++i) {
    const auto name = et::get_backend_name(i);
    if (name.ok() && std::string(*name) != kLinearBackend) info.backends.emplace_back(*name);
  }
  std::sort(info.backends.begin(), info.backends.end());
  return info;
}

}  // namespace emm
