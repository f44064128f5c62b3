#include "linear/amx.h"

#if defined(EMM_HAS_AMX)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <vector>

#include "linear/linear.h"
#endif

namespace emm::linear {

#if defined(EMM_HAS_AMX)
namespace {

// From the kernel's asm/prctl.h, which older headers lack.
constexpr int kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
constexpr int kTileData = 18;               // number of the state component

// Both formats, tiles of 16 rows and of one, outputs that fill no tile.
bool agrees_with_vnni() {
  constexpr int64_t kInputs = 192;
  constexpr int64_t kOutputs = 37;
  constexpr int64_t kRows = 49;
  uint32_t state = 1;
  const auto next = [&state] { return (state = state * 1664525 + 1013904223) >> 8; };
  std::vector<float> x(kRows * kInputs);
  for (float& value : x) value = static_cast<float>(next()) * 0x1p-23f - 0.7f;
  std::vector<uint8_t> weights(kInputs * kOutputs);
  for (uint8_t& byte : weights) byte = static_cast<uint8_t>(next());
  std::vector<float> wide(kOutputs, 0.375f);
  std::vector<uint16_t> narrow(kOutputs * kInputs / 32);
  for (uint16_t& scale : narrow) scale = static_cast<uint16_t>(0x3C00 + next() % 256);
  for (const int64_t group : {0, 32, 64}) {
    Layer layer;
    layer.format = group == 0 ? Format::kInt8 : Format::kInt4Groups;
    layer.inputs = kInputs;
    layer.outputs = kOutputs;
    layer.group = group;
    layer.weights = weights.data();
    layer.scales = group == 0 ? reinterpret_cast<const uint8_t*>(wide.data())
                              : reinterpret_cast<const uint8_t*>(narrow.data());
    std::vector<float> out[2];
    for (const bool tiles : {false, true}) {
      LinearParts parts({{layer, 0}}, tiles ? kAmxKernels : kAvx512VnniKernels);
      out[tiles].resize(kRows * kOutputs);
      if (!parts.run({x.data()}, {kRows}, {out[tiles].data()}, serial_runner())) return false;
    }
    if (out[0] != out[1]) return false;
  }
  return true;
}

}  // namespace

bool has_amx() {
  static const bool has = [] {
    uint32_t a = 0;
    uint32_t b = 0;
    uint32_t c = 0;
    uint32_t d = 0;
    __get_cpuid(1, &a, &b, &c, &d);
    if ((c & (1u << 27)) == 0) return false;  // xgetbv
    __get_cpuid_count(7, 0, &a, &b, &c, &d);
    constexpr uint32_t kTilesOfInt8 = 3u << 24;
    if ((d & kTilesOfInt8) != kTilesOfInt8) return false;
    uint32_t low = 0;
    uint32_t high = 0;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    constexpr uint32_t kTileState = 3u << 17;
    if ((low & kTileState) != kTileState) return false;
    for (const Kernels* kernels : usable_kernels()) {
      if (kernels == &kAvx512VnniKernels) return true;
    }
    return false;
  }();
  return has;
}

AmxAnswer ask_for_amx() {
  static const AmxAnswer answer = []() -> AmxAnswer {
    if (syscall(SYS_arch_prctl, kRequestPermission, kTileData) != 0)
      return {&kAvx512VnniKernels, "the operating system does not let this process use AMX"};
    if (!agrees_with_vnni())
      return {&kAvx512VnniKernels, "AMX gives other numbers than AVX512-VNNI on this machine"};
    return {&kAmxKernels, nullptr};
  }();
  return answer;
}

#else

bool has_amx() { return false; }
AmxAnswer ask_for_amx() { return {usable_kernels().front(), "this build has no kernels for AMX"}; }

#endif

}  // namespace emm::linear
