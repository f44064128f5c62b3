#include "linear/kernels.h"

#include <algorithm>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

#include "linear/amx.h"

namespace emm::linear {

#if defined(__x86_64__)
namespace {

// As the tiles, which have no name that all compilers know.
bool has_avxvnni() {
  uint32_t a = 0;
  uint32_t b = 0;
  uint32_t c = 0;
  uint32_t d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & (1u << 4)) != 0;
}

}  // namespace
#elif defined(__aarch64__)
namespace {

#if defined(__APPLE__)
bool has(const char* feature) {
  int value = 0;
  size_t size = sizeof value;
  return sysctlbyname(feature, &value, &size, nullptr, 0) == 0 && value != 0;
}
bool has_dotprod() { return has("hw.optional.arm.FEAT_DotProd"); }
bool has_i8mm() { return has("hw.optional.arm.FEAT_I8MM"); }
#else
// Bits of the kernel's interface, which older headers do not name.
bool has_dotprod() { return (getauxval(AT_HWCAP) & (1UL << 20)) != 0; }
bool has_i8mm() { return (getauxval(AT_HWCAP2) & (1UL << 13)) != 0; }
#endif

}  // namespace
#endif

void expand_scales(const Layer& layer, int64_t begin, int64_t end, int64_t block, float* to) {
  const int64_t groups = layer.groups();
  for (int64_t n = 0; n < block; ++n) {
    const uint8_t* const row = layer.scales + std::min(begin + n, end - 1) * groups * 2;
    for (int64_t g = 0; g < groups; ++g) to[g * block + n] = load_bfloat16(row, g);
  }
}

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
    if (has_avx2 && has_avxvnni()) found.push_back(&kAvxVnniKernels);
    if (has_avx2) found.push_back(&kAvx2Kernels);
#elif defined(__aarch64__)
    if (has_dotprod() && has_i8mm()) found.push_back(&kI8mmKernels);
    if (has_dotprod()) found.push_back(&kDotprodKernels);
#endif
    found.push_back(&kReferenceKernels);
    return found;
  }();
  return usable;
}

std::vector<std::string> kernels_on_request() {
  if (has_amx()) return {"amx"};
  return {};
}

const Kernels* find_kernels(const std::string& name) {
  for (const Kernels* kernels : usable_kernels()) {
    if (name == kernels->name) return kernels;
  }
  return name == "amx" && has_amx() ? ask_for_amx().kernels : nullptr;
}

}  // namespace emm::linear
