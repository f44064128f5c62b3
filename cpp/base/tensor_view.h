// A dense row-major array that somebody else owns. Views are passed by value; whoever makes one
// keeps the memory alive while it is read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

#include "base/dtype.h"

namespace emm {

using Shape = std::vector<int64_t>;

inline int64_t num_elements(const Shape& shape) {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1},
                         [](int64_t product, int64_t size) { return product * size; });
}

inline std::string shape_string(const Shape& shape) {
  std::string text = "(";
  for (size_t i = 0; i < shape.size(); ++i) {
    if (i != 0) text += ", ";
    text += std::to_string(shape[i]);
  }
  return text + (shape.size() == 1 ? ",)" : ")");
}

struct TensorView {
  const void* data = nullptr;
  DType dtype = DType::kOther;
  Shape shape;

  int64_t size() const { return num_elements(shape); }
  size_t size_bytes() const { return static_cast<size_t>(size()) * dtype_size(dtype); }
  const void* at_byte(size_t offset_bytes) const {
    return static_cast<const char*>(data) + offset_bytes;
  }
  std::string describe() const {
    return std::string(dtype_name(dtype)) + " " + shape_string(shape);
  }
};

// num_rows rows of a (rows, columns) view, from first_row on.
inline TensorView row_range(const TensorView& view, int64_t first_row, int64_t num_rows) {
  const int64_t columns = view.shape.at(1);
  const size_t row_bytes = static_cast<size_t>(columns) * dtype_size(view.dtype);
  return {
      view.at_byte(static_cast<size_t>(first_row) * row_bytes), view.dtype, {num_rows, columns}};
}

}  // namespace emm
