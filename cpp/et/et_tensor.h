// Between ExecuTorch's tensors and our views.
#pragma once

#include <executorch/extension/tensor/tensor.h>

#include <utility>
#include <vector>

#include "base/tensor_view.h"
#include "et/et_types.h"

namespace emm {

// An EValue made of the result refers to it without owning it. ExecuTorch takes a mutable pointer
// but only reads its inputs.
inline executorch::extension::TensorPtr to_tensor(const TensorView& view) {
  std::vector<executorch::aten::SizesType> sizes;
  for (const int64_t size : view.shape)
    sizes.push_back(static_cast<executorch::aten::SizesType>(size));
  return executorch::extension::from_blob(const_cast<void*>(view.data), std::move(sizes),
                                          to_scalar_type(view.dtype));
}

inline TensorView to_view(const executorch::aten::Tensor& tensor) {
  TensorView view{tensor.const_data_ptr(), from_scalar_type(tensor.scalar_type()), {}};
  for (const auto size : tensor.sizes()) view.shape.push_back(size);
  return view;
}

}  // namespace emm
