#include "et/rotary_call.h"

#include <executorch/runtime/core/exec_aten/util/tensor_util.h>
#include <executorch/runtime/platform/log.h>

#include <algorithm>
#include <array>
#include <cstddef>

#include "ops/parallel.h"

namespace emm {
namespace {

using executorch::aten::SizesType;
using executorch::aten::Tensor;
using executorch::runtime::ArrayRef;
using executorch::runtime::Error;

constexpr int64_t kWorkPerThread = 1 << 15;  // numbers
constexpr int64_t kWorkPerTask = 1 << 13;
constexpr ptrdiff_t kMaxRank = 15;  // of what is taken apart

class RotaryCall final : public TakenGraph {
 public:
  RotaryCall(const std::vector<RotaryPart>& parts, const linear::PointwiseLoops& loops)
      : parts_(parts), rotate_(loops.rotate) {}

  Error run(Args args) override {
    for (const RotaryPart& part : parts_) {
      const Error error = turn(args, part);
      if (error != Error::Ok) return error;
    }
    return Error::Ok;
  }

 private:
  Error turn(Args args, const RotaryPart& part) const {
    const int64_t columns = part.heads * part.pairs * 2;
    const Tensor* from = tensor_at(args, part.even);
    if (from == nullptr || from != tensor_at(args, part.odd) || from->dim() == 0 ||
        from->dim() > kMaxRank || from->size(from->dim() - 1) != columns || columns == 0)
      return refuse(part.even);
    const int64_t rows = from->numel() / columns;
    std::array<const float*, 2> angles{};
    for (const size_t i : {0, 1}) {
      const uint32_t arg = i == 0 ? part.cosine : part.sine;
      const Tensor* tensor = tensor_at(args, arg);
      if (tensor == nullptr || tensor->dim() == 0 ||
          tensor->size(tensor->dim() - 1) != part.pairs || tensor->numel() != rows * part.pairs)
        return refuse(arg);
      angles[i] = tensor->const_data_ptr<float>();
    }
    const Tensor* to = tensor_at(args, part.output);
    if (to == nullptr) return refuse(part.output);
    std::array<SizesType, kMaxRank + 1> sizes{};
    const auto rank = static_cast<size_t>(from->dim());
    std::copy_n(from->sizes().begin(), rank - 1, sizes.begin());
    sizes[rank - 1] = static_cast<SizesType>(part.heads);
    sizes[rank] = static_cast<SizesType>(part.pairs * 2);
    const Error error = executorch::ET_RUNTIME_NAMESPACE::resize_tensor(
        *to, ArrayRef<SizesType>(sizes.data(), rank + 1));
    if (error != Error::Ok) return error;
    const float* const source = from->const_data_ptr<float>();
    float* const target = to->mutable_data_ptr<float>();
    if (rows == 0) return Error::Ok;
    if (source == nullptr || target == nullptr || angles[0] == nullptr || angles[1] == nullptr)
      return refuse(part.even);

    const int64_t step = std::max<int64_t>(1, kWorkPerTask / columns);
    const int64_t tasks = (rows + step - 1) / step;
    ops::run_tasks(tasks, ops::threads_for(tasks, rows * columns, kWorkPerThread),
                   [&](int64_t task, int64_t /*worker*/) {
                     const int64_t end = std::min(rows, (task + 1) * step);
                     for (int64_t row = task * step; row < end; ++row) {
                       for (int64_t head = 0; head < part.heads; ++head) {
                         const int64_t at = row * columns + head * part.pairs * 2;
                         rotate_(source + at, angles[0] + row * part.pairs,
                                 angles[1] + row * part.pairs, target + at, part.pairs);
                       }
                     }
                   });
    return Error::Ok;
  }

  static Error refuse(uint32_t arg) {
    ET_LOG(Error, "rotary embedding: argument %u: expected floats of the graph's shape", arg);
    return Error::InvalidArgument;
  }

  std::vector<RotaryPart> parts_;
  void (*rotate_)(const float*, const float*, const float*, float*, int64_t);
};

}  // namespace

std::unique_ptr<TakenGraph> make_rotary_call(const std::vector<RotaryPart>& parts,
                                             const linear::PointwiseLoops& loops) {
  return std::make_unique<RotaryCall>(parts, loops);
}

}  // namespace emm
