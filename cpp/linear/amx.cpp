// Kernels for AMX's 8-bit tiles beside AVX-512 and VNNI, which do what tiles do not pay for: few
// rows, and floats.
#include "linear/amx_columns.h"
#include "linear/avx512vnni.h"

namespace emm::linear {
namespace {

constexpr int64_t kFewestRows = 16;  // that are worth a tile

// Written as assembly: gcc's intrinsics do not say that they read memory.
struct HardwareTiles {
  static void configure(const TileConfig& config) {
    asm volatile("ldtilecfg %0" ::"m"(config) : "memory");
  }
  static void release() { asm volatile("tilerelease" ::: "memory"); }
  template <int kTile>
  static void zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(kTile));
  }
  template <int kTile>
  static void load(const void* from, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(kTile) : "memory");
  }
  template <int kTile>
  static void store(void* to, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(kTile) : "memory");
  }
  // Sum += A x B, both of signed bytes.
  template <int kSum, int kA, int kB>
  static void multiply() {
    asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSum), "i"(kA), "i"(kB));
  }
};
using Tiled = AmxColumns<HardwareTiles>;

void columns(const Layer& layer, const Activations& in, const float* sums, int64_t begin,
             int64_t end, uint8_t* scratch, float* out) {
  if (in.rows < kFewestRows || !is_quantised(layer.format))
    return avx512vnni::columns(layer, in, sums, begin, end, scratch, out);
  Tiled::run(layer, in, sums, begin, end, scratch, out);
}

int64_t column_scratch(const Layer& layer) {
  return std::max(avx512vnni::column_scratch(layer),
                  is_quantised(layer.format) ? Tiled::scratch(layer) : 0);
}

}  // namespace

// Block and orders are those of avx512vnni.cpp, which gets the same activations.
const Kernels kAmxKernels = {"amx",
                             128,
                             Tiled::kChunk,
                             8,
                             8,
                             Tiled::kBlock,
                             avx512vnni::quantise,
                             avx512vnni::rows,
                             columns,
                             column_scratch,
                             &kAvx512Loops};

}  // namespace emm::linear
