// Element conversions between what callers hold and what methods want. Between widths of floats and
// of ids the value stays; only in images do bytes stand for floats, 0..255 for 0..1.
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

// The same for an image: bytes become floats in 0..1, and floats, which must lie there, bytes.
TensorView convert_image(const TensorView& source, DType wanted, std::vector<uint8_t>& buffer);

// False when a float view holds a NaN or an infinity; other dtypes are always finite.
bool all_finite(const TensorView& view);

}  // namespace emm
