#include "linear/avx2_columns.h"

namespace emm::linear::avx2 {

int64_t column_scratch(const Layer& layer) {
  return weight_room(layer) + scale_room(layer) +
         (layer.format == Format::kInt8 ? kTileRows * padded(layer.inputs) * 2 : 0);
}

void columns(const Layer& layer, const Activations& in, const float* sums, int64_t begin,
             int64_t end, uint8_t* scratch, float* out) {
  columns_of(layer, in, sums, begin, end, scratch, out);
}

}  // namespace emm::linear::avx2
