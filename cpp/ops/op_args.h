// Reading an operator's arguments from the runtime's stack, and reporting what is wrong with them.
// A wrong count or a wrong kind of argument (a damaged or future .pte) becomes an error of the
// call, where the templates of the SDK would abort the process.
#pragma once

#include <cstddef>
#include <cstdint>

#include <executorch/runtime/core/evalue.h>
#include <executorch/runtime/core/exec_aten/exec_aten.h>
#include <executorch/runtime/core/span.h>
#include <executorch/runtime/kernel/kernel_runtime_context.h>

namespace emm::ops {

using executorch::aten::ScalarType;
using executorch::aten::Tensor;
using Context = executorch::ET_RUNTIME_NAMESPACE::KernelRuntimeContext;
using Stack = executorch::runtime::Span<executorch::runtime::EValue*>;

// Logs one Error line and fails the call with InvalidArgument. The line starts with the operator's
// name; the runtime cuts log lines at 255 characters.
[[gnu::format(printf, 2, 3)]] void fail(Context& ctx, const char* format, ...);

// A tensor's dtype and shape as text, such as "Float[1, 8, 9, 64]", for error lines.
class TensorText {
 public:
  explicit TensorText(const Tensor& tensor);
  const char* c_str() const { return text_; }

 private:
  char text_[72];
};

// The arguments of one call, in the order of the schema. The first argument of the wrong kind fails
// the call; after that every reader returns its default, so a kernel reads everything and asks ok()
// once.
class Args {
 public:
  Args(Context& ctx, Stack stack, const char* op, size_t count);

  const Tensor* tensor(size_t index);
  const Tensor* optional_tensor(size_t index);
  int64_t integer(size_t index);
  double number(size_t index);
  // The number, or `fallback` where the argument is None.
  double optional_number(size_t index, double fallback);
  bool boolean(size_t index);
  bool ok() const { return ok_; }

 private:
  void wrong_kind(size_t index, const char* expected);

  Context& ctx_;
  Stack stack_;
  const char* op_;
  bool ok_ = true;
};

// Whether the tensor is laid out row by row and has memory behind it (an empty tensor needs none).
bool is_plain(const Tensor& tensor);

// Whether both tensors have the same sizes.
bool same_shape(const Tensor& a, const Tensor& b);

// Gives `out` the sizes; fails the call where its memory is too small for them or its rank differs.
bool resize_output(Context& ctx, const char* op, const Tensor& out, const int64_t* sizes,
                   size_t rank);

}  // namespace emm::ops
