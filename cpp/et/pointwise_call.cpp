#include "et/pointwise_call.h"

#include <executorch/runtime/core/exec_aten/util/tensor_util.h>
#include <executorch/runtime/platform/log.h>

#include <algorithm>
#include <cstddef>
#include <vector>

#include "ops/parallel.h"

namespace emm {
namespace {

using executorch::aten::SizesType;
using executorch::aten::Tensor;
using executorch::runtime::ArrayRef;
using executorch::runtime::Error;

// Numbers times steps that are worth another thread, and that a task should hold.
constexpr int64_t kWorkPerThread = 1 << 16;
constexpr int64_t kWorkPerTask = 1 << 14;

class PointwiseCall final : public TakenGraph {
 public:
  PointwiseCall(const PointwiseGraph& graph, const linear::PointwiseLoops& loops) {
    plan_.columns = graph.columns;
    for (const PointwiseValue& value : graph.values) {
      plan_.values.push_back(
          {value.has_rows, value.has_columns, value.input.has_value() || value.output.has_value()});
    }
    for (const PointwiseNode& node : graph.nodes) {
      linear::PointwiseStep step;
      step.a = node.a;
      step.b = node.b;
      step.to = node.to;
      switch (node.op) {
        case PointwiseOp::kAdd:
          step.two = &loops.add;
          break;
        case PointwiseOp::kSubtract:
          step.two = &loops.subtract;
          break;
        case PointwiseOp::kMultiply:
          step.two = &loops.multiply;
          break;
        case PointwiseOp::kSigmoid:
          step.one = loops.sigmoid;
          break;
        case PointwiseOp::kReciprocalRoot:
          step.one = loops.reciprocal_root;
          break;
      }
      plan_.steps.push_back(step);
    }
    for (size_t v = 0; v < graph.values.size(); ++v) {
      const PointwiseValue& value = graph.values[v];
      if (value.input) inputs_.push_back({v, *value.input});
      if (value.output) outputs_.push_back({v, *value.output});
      if (value.input && value.has_rows) shape_arg_ = *value.input;
    }
    memory_.resize(graph.values.size());
  }

  Error run(Args args) override {
    // The rows of an input that has them are those of all.
    const Tensor* shape = tensor_at(args, shape_arg_);
    if (shape == nullptr || shape->dim() == 0) return refuse(shape_arg_);
    sizes_.assign(shape->sizes().begin(), shape->sizes().end());
    sizes_.back() = static_cast<SizesType>(plan_.columns);
    int64_t rows = 1;
    for (size_t i = 0; i + 1 < sizes_.size(); ++i) rows *= sizes_[i];
    for (const Outside& input : inputs_) {
      const Tensor* tensor = tensor_at(args, input.arg);
      if (tensor == nullptr || !fits(*tensor, plan_.values[input.value], rows))
        return refuse(input.arg);
      // Inputs are only read.
      memory_[input.value] = const_cast<float*>(tensor->const_data_ptr<float>());
      if (memory_[input.value] == nullptr && rows > 0) return refuse(input.arg);
    }
    for (const Outside& output : outputs_) {
      const Tensor* tensor = tensor_at(args, output.arg);
      if (tensor == nullptr) return refuse(output.arg);
      const Error error = executorch::ET_RUNTIME_NAMESPACE::resize_tensor(
          *tensor, ArrayRef<SizesType>(sizes_.data(), sizes_.size()));
      if (error != Error::Ok) return error;
      memory_[output.value] = tensor->mutable_data_ptr<float>();
      if (memory_[output.value] == nullptr && rows > 0) return refuse(output.arg);
    }
    const int64_t row_work =
        std::max<int64_t>(1, plan_.columns * static_cast<int64_t>(plan_.steps.size()));
    const int64_t step = std::max<int64_t>(1, kWorkPerTask / row_work);
    const int64_t tasks = (rows + step - 1) / step;
    ops::run_tasks(tasks, ops::threads_for(tasks, rows * row_work, kWorkPerThread),
                   [&](int64_t task, int64_t /*worker*/) {
                     plan_.run(memory_, task * step, std::min(rows, (task + 1) * step));
                   });
    return Error::Ok;
  }

 private:
  struct Outside {
    size_t value;
    uint32_t arg;
  };

  bool fits(const Tensor& tensor, const linear::PointwisePlan::Value& value, int64_t rows) const {
    const int64_t columns = value.has_columns ? plan_.columns : 1;
    if (tensor.dim() == 0) return !value.has_rows && columns == 1;  // one number
    if (tensor.size(tensor.dim() - 1) != columns) return false;
    if (!value.has_rows) return tensor.numel() == columns;
    if (static_cast<size_t>(tensor.dim()) != sizes_.size()) return false;
    for (size_t i = 0; i + 1 < sizes_.size(); ++i) {
      if (tensor.size(static_cast<ptrdiff_t>(i)) != sizes_[i]) return false;
    }
    return tensor.numel() == rows * columns;
  }

  static Error refuse(uint32_t arg) {
    ET_LOG(Error, "pointwise: argument %u: expected floats of the graph's shape", arg);
    return Error::InvalidArgument;
  }

  linear::PointwisePlan plan_;
  std::vector<Outside> inputs_;
  std::vector<Outside> outputs_;
  uint32_t shape_arg_ = 0;
  // Of the call that runs.
  std::vector<SizesType> sizes_;
  std::vector<float*> memory_;
};

}  // namespace

std::unique_ptr<TakenGraph> make_pointwise_call(const PointwiseGraph& graph,
                                                const linear::PointwiseLoops& loops) {
  return std::make_unique<PointwiseCall>(graph, loops);
}

}  // namespace emm
