#include "ops/isa.h"

#include <atomic>
#include <cstring>

namespace emm::ops {
namespace {

const IsaKernels& best() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  // These also ask whether the operating system saves the wide registers.
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
    return kAvx512Kernels;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("f16c")) {
    return kAvx2Kernels;
  }
#endif
  return kBaselineKernels;
}

std::atomic<const IsaKernels*> chosen{nullptr};

}  // namespace

const IsaKernels& isa_kernels() {
  const IsaKernels* kernels = chosen.load(std::memory_order_relaxed);
  if (kernels == nullptr) {
    kernels = &best();
    chosen.store(kernels, std::memory_order_relaxed);
  }
  return *kernels;
}

bool force_isa(const char* name) {
  const IsaKernels* const top = &best();
  const IsaKernels* kernels = nullptr;
  if (name[0] == '\0' || std::strcmp(name, top->name) == 0) {
    kernels = top;
  } else if (std::strcmp(name, kBaselineKernels.name) == 0) {
    kernels = &kBaselineKernels;
  }
#if defined(__x86_64__)
  if (top == &kAvx512Kernels && std::strcmp(name, kAvx2Kernels.name) == 0) {
    kernels = &kAvx2Kernels;  // a machine with AVX-512 has AVX2
  }
#endif
  if (kernels != nullptr) {
    chosen.store(kernels, std::memory_order_relaxed);
  }
  return kernels != nullptr;
}

}  // namespace emm::ops
