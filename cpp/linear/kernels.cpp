#include "linear/kernels.h"

#include <cstring>

namespace emm::linear {

const std::vector<const Kernels*>& usable_kernels() {
  static const std::vector<const Kernels*> usable = [] {
    std::vector<const Kernels*> found;
#if defined(__x86_64__)
    __builtin_cpu_init();
    // These also ask whether the operating system saves the wide registers.
    const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vnni"))
      found.push_back(&kAvx512VnniKernels);
    if (has_avx2) found.push_back(&kAvx2Kernels);
#endif
    found.push_back(&kReferenceKernels);
    return found;
  }();
  return usable;
}

const Kernels* find_kernels(const std::string& name) {
  for (const Kernels* kernels : usable_kernels()) {
    if (name == kernels->name) return kernels;
  }
  return nullptr;
}

}  // namespace emm::linear
