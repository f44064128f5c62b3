// AVX-VNNI: what processors have that lack AVX-512, such as laptops' from 2021 on. Calls of many
// rows of 4-bit groups use it; all else is AVX2's.
#include "linear/avx2_columns.h"

namespace emm::linear {
namespace {

void columns(const Layer& layer, const Activations& in, const float* sums, int64_t begin,
             int64_t end, uint8_t* scratch, float* out) {
  if (layer.format != Format::kInt4Groups)
    return avx2::columns(layer, in, sums, begin, end, scratch, out);
  avx2::columns_of(layer, in, sums, begin, end, scratch, out);
}

}  // namespace

const Kernels kAvxVnniKernels = {
    "avxvnni", avx2::kChunk,         8,          6, 2, avx2::kBlock, avx2::quantise, avx2::rows,
    columns,   avx2::column_scratch, &kAvx2Loops};

}  // namespace emm::linear
