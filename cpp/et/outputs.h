// Views of what a method gave.
#pragma once

#include <cstdint>
#include <vector>

#include "base/tensor_view.h"

namespace emm {

// (…, rows, columns) -> (rows, columns), the leading dimensions stacked.
inline TensorView as_rows(TensorView view) {
  const int64_t columns = view.shape.back();
  view.shape = {columns == 0 ? 0 : view.size() / columns, columns};
  return view;
}

// (1, vocab_size) -> (vocab_size)
inline TensorView last_row(TensorView rows) {
  rows.shape = {rows.shape[1]};
  return rows;
}

// In `copy`, where it outlasts the method's next call.
inline TensorView copied(TensorView output, std::vector<uint8_t>& copy) {
  const auto* bytes = static_cast<const uint8_t*>(output.data);
  if (bytes == copy.data()) return output;
  copy.assign(bytes, bytes + output.size_bytes());
  output.data = copy.data();
  return output;
}

}  // namespace emm
