#include "ops/mean.h"

#include <executorch/runtime/core/event_tracer_hooks.h>
#include <executorch/runtime/kernel/operator_registry.h>

#include "ops/parallel.h"

namespace emm::ops {
namespace {

using executorch::ET_RUNTIME_NAMESPACE::OpFunction;
using executorch::runtime::internal::EventTracerProfileOpScope;

constexpr int64_t kRowsAtOnce = 8;
constexpr int64_t kTaskRows = 4 * kRowsAtOnce;
constexpr int64_t kWorkPerThread = 50'000;  // numbers
constexpr ssize_t kMaxRank = 16;
constexpr ScalarType kFloat = ScalarType::Float;

OpFunction sdk_kernel() {
  static const auto found =
      executorch::ET_RUNTIME_NAMESPACE::get_op_function_from_registry("aten::mean.out");
  return found.ok() ? *found : nullptr;
}

// Of floats along the last dimension.
bool is_of_rows(const Tensor& in, const executorch::runtime::EValue& dim,
                const executorch::runtime::EValue& dtype, const Tensor& out) {
  if (!dim.isIntList() || (dtype.isInt() && dtype.toInt() != static_cast<int64_t>(kFloat)))
    return false;
  const auto dims = dim.toIntList();
  return in.scalar_type() == kFloat && out.scalar_type() == kFloat && in.dim() > 0 &&
         in.dim() <= kMaxRank && in.numel() > 0 && is_plain(in) && dims.size() == 1 &&
         (dims[0] == -1 || dims[0] == in.dim() - 1);
}

// Each row is summed number by number, as the SDK does, whose additions wait for each other: rows
// do not.
template <int64_t kRows>
void sum_rows(const float* rows, int64_t columns, float* sums) {
  float sum[kRows] = {};
  for (int64_t c = 0; c < columns; ++c) {
    for (int64_t r = 0; r < kRows; ++r) sum[r] += rows[r * columns + c];
  }
  for (int64_t r = 0; r < kRows; ++r) sums[r] = sum[r];
}

}  // namespace

// mean.out(self, dim, keepdim, *, dtype, out!)
void mean(Context& ctx, Stack stack) {
  constexpr const char* kOp = "aten::mean";
  Args args(ctx, stack, kOp, 5);
  const Tensor* in = args.tensor(0);
  const bool keeps = args.boolean(2);
  const Tensor* out = args.tensor(4);
  if (!args.ok()) return;
  const auto& dim = *stack[1];
  const auto& dtype = *stack[3];
  const bool are_kinds = (dim.isNone() || dim.isIntList()) && (dtype.isNone() || dtype.isInt());
  if (!are_kinds) return fail(ctx, "%s: expected a list of dimensions and a dtype, or none", kOp);
  if (!is_of_rows(*in, dim, dtype, *out)) {
    if (const OpFunction sdk = sdk_kernel()) return sdk(ctx, stack);
    return fail(ctx, "%s: expected floats and their last dimension", kOp);
  }

  EventTracerProfileOpScope scope(ctx.internal_event_tracer(), kOp);
  int64_t sizes[kMaxRank];
  for (ssize_t d = 0; d < in->dim(); ++d) sizes[d] = in->size(d);
  const int64_t columns = sizes[in->dim() - 1];
  const int64_t rows = in->numel() / columns;
  sizes[in->dim() - 1] = 1;
  const size_t rank = static_cast<size_t>(in->dim()) - (keeps ? 0 : 1);
  if (!resize_output(ctx, kOp, *out, sizes, rank)) return;
  const float* const from = in->const_data_ptr<float>();
  float* const to = out->mutable_data_ptr<float>();
  const int64_t tasks = (rows + kTaskRows - 1) / kTaskRows;
  run_tasks(tasks, threads_for(tasks, in->numel(), kWorkPerThread),
            [&](int64_t task, int64_t /*worker*/) {
              int64_t row = task * kTaskRows;
              const int64_t end = row + kTaskRows < rows ? row + kTaskRows : rows;
              for (; row + kRowsAtOnce <= end; row += kRowsAtOnce)
                sum_rows<kRowsAtOnce>(from + row * columns, columns, to + row);
              for (; row < end; ++row) sum_rows<1>(from + row * columns, columns, to + row);
              for (row = task * kTaskRows; row < end; ++row) to[row] /= static_cast<float>(columns);
            });
}

}  // namespace emm::ops
