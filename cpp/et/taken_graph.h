// A delegate's graph that our backend runs.
#pragma once

#include <executorch/runtime/core/error.h>
#include <executorch/runtime/core/evalue.h>
#include <executorch/runtime/core/span.h>

#include <cstdint>

namespace emm {

class TakenGraph {
 public:
  using Args = executorch::runtime::Span<executorch::runtime::EValue*>;

  virtual ~TakenGraph() = default;
  virtual executorch::runtime::Error run(Args args) = 0;

 protected:
  // Of floats in the plain order; null for anything else.
  static const executorch::aten::Tensor* tensor_at(Args args, uint32_t index) {
    if (index >= args.size() || !args[index]->isTensor()) return nullptr;
    const executorch::aten::Tensor& tensor = args[index]->toTensor();
    if (tensor.scalar_type() != executorch::aten::ScalarType::Float) return nullptr;
    const auto order = tensor.dim_order();
    for (size_t i = 0; i < order.size(); ++i) {
      if (order[i] != i) return nullptr;
    }
    return &tensor;
  }
};

}  // namespace emm
