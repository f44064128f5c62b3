// Element conversions between what callers hold and what encoders want. float -> float of another
// width keeps the value; uint8 -> float divides by 255, the convention of image tensors in 0..1.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/tensor_view.h"

namespace emm {

// `source` itself when it has the wanted dtype, otherwise its conversion, held in `buffer`. Throws
// Error(kInput), starting with `what`, for pairs that have no meaning.
TensorView convert(const TensorView& source, DType wanted, std::vector<uint8_t>& buffer,
                   const std::string& what);

// False when a float view holds a NaN or an infinity; other dtypes are always finite.
bool all_finite(const TensorView& view);

}  // namespace emm
