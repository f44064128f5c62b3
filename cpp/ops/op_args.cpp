#include "ops/op_args.h"

#include <cstdarg>
#include <cstdio>

#include <executorch/runtime/core/exec_aten/util/scalar_type_util.h>
#include <executorch/runtime/core/exec_aten/util/tensor_util.h>
#include <executorch/runtime/platform/log.h>

namespace emm::ops {

using executorch::runtime::Error;

void fail(Context& ctx, const char* format, ...) {
  char line[256];
  va_list values;
  va_start(values, format);
  std::vsnprintf(line, sizeof line, format, values);
  va_end(values);
  ET_LOG(Error, "%s", line);
  ctx.fail(Error::InvalidArgument);
}

TensorText::TensorText(const Tensor& tensor) {
  size_t used = 0;
  const auto append = [&](const char* format, auto value) {
    if (used < sizeof text_) {
      const int written = std::snprintf(text_ + used, sizeof text_ - used, format, value);
      used += written > 0 ? static_cast<size_t>(written) : 0;
    }
  };
  append("%s[", executorch::runtime::toString(tensor.scalar_type()));
  for (ssize_t dim = 0; dim < tensor.dim(); ++dim) {
    append(dim == 0 ? "%lld" : ", %lld", static_cast<long long>(tensor.size(dim)));
  }
  append("%s", "]");
}

Args::Args(Context& ctx, Stack stack, const char* op, size_t count)
    : ctx_(ctx), stack_(stack), op_(op) {
  if (stack.size() < count) {
    ok_ = false;
    fail(ctx_, "%s: expected at least %zu arguments, got %zu", op_, count, stack.size());
  }
}

void Args::wrong_kind(size_t index, const char* expected) {
  if (ok_) {
    ok_ = false;
    fail(ctx_, "%s: expected argument %zu to be %s, got a value of another kind (tag %d)", op_,
         index, expected, static_cast<int>(stack_[index]->tag));
  }
}

const Tensor* Args::tensor(size_t index) {
  if (!ok_) {
    return nullptr;
  }
  if (!stack_[index]->isTensor()) {
    wrong_kind(index, "a tensor");
    return nullptr;
  }
  const executorch::runtime::EValue& value = *stack_[index];
  return &value.toTensor();
}

const Tensor* Args::optional_tensor(size_t index) {
  return ok_ && stack_[index]->isNone() ? nullptr : tensor(index);
}

int64_t Args::integer(size_t index) {
  if (!ok_) {
    return 0;
  }
  if (!stack_[index]->isInt()) {
    wrong_kind(index, "an integer");
    return 0;
  }
  return stack_[index]->toInt();
}

double Args::number(size_t index) {
  if (!ok_) {
    return 0;
  }
  if (stack_[index]->isInt()) {
    return static_cast<double>(stack_[index]->toInt());
  }
  if (!stack_[index]->isDouble()) {
    wrong_kind(index, "a number");
    return 0;
  }
  return stack_[index]->toDouble();
}

double Args::optional_number(size_t index, double fallback) {
  return ok_ && stack_[index]->isNone() ? fallback : number(index);
}

bool Args::boolean(size_t index) {
  if (!ok_) {
    return false;
  }
  if (!stack_[index]->isBool()) {
    wrong_kind(index, "a bool");
    return false;
  }
  return stack_[index]->toBool();
}

bool is_plain(const Tensor& tensor) {
  const auto order = tensor.dim_order();
  for (size_t i = 0; i < order.size(); ++i) {
    if (order[i] != i) {
      return false;
    }
  }
  return tensor.numel() == 0 || tensor.const_data_ptr() != nullptr;
}

bool same_shape(const Tensor& a, const Tensor& b) {
  if (a.dim() != b.dim()) {
    return false;
  }
  for (ssize_t dim = 0; dim < a.dim(); ++dim) {
    if (a.size(dim) != b.size(dim)) {
      return false;
    }
  }
  return true;
}

bool resize_output(Context& ctx, const char* op, const Tensor& out, const int64_t* sizes,
                   size_t rank) {
  constexpr size_t kMaxRank = 16;
  executorch::aten::SizesType wanted[kMaxRank] = {};
  bool fits = rank <= kMaxRank && static_cast<size_t>(out.dim()) == rank;
  bool same = fits;
  for (size_t i = 0; fits && i < rank; ++i) {
    wanted[i] = static_cast<executorch::aten::SizesType>(sizes[i]);
    fits = wanted[i] == sizes[i];
    same = same && out.size(static_cast<ssize_t>(i)) == sizes[i];
  }
  if (fits && !same) {
    fits =
        executorch::runtime::resize_tensor(const_cast<Tensor&>(out), {wanted, rank}) == Error::Ok;
  }
  if (!fits) {
    fail(ctx, "%s: expected an output that can take the result's shape, got %s", op,
         TensorText(out).c_str());
    return false;
  }
  if (!is_plain(out)) {
    fail(ctx, "%s: expected a contiguous output with memory, got %s", op, TensorText(out).c_str());
    return false;
  }
  return true;
}

}  // namespace emm::ops
