#include "ops/hadamard.h"

#include <cmath>
#include <cstdint>

#include <executorch/runtime/core/event_tracer_hooks.h>

#include "base/dtype.h"
#include "ops/isa.h"
#include "ops/parallel.h"
#include "ops/scratch.h"

namespace emm::ops {
namespace {

using executorch::runtime::internal::EventTracerProfileOpScope;

// Additions for which a thread is worth waking.
constexpr int64_t kWorkPerThread = 200'000;
constexpr int64_t kOrder = 28;

// Sign of the Hadamard matrix of order 28, which Williamson's construction builds from four
// symmetric circulant blocks of order 7: [A B C D; -B A -D C; -C D A -B; -D -C B A].
class Hadamard28 {
 public:
  Hadamard28() {
    const char* first_rows[4] = {"+------", "++----+", "+-+--+-", "+--++--"};
    const int block[4][4] = {{0, 1, 2, 3}, {1, 0, 3, 2}, {2, 3, 0, 1}, {3, 2, 1, 0}};
    const int sign[4][4] = {{1, 1, 1, 1}, {-1, 1, -1, 1}, {-1, 1, 1, -1}, {-1, -1, 1, 1}};
    for (int r = 0; r < kOrder; ++r) {
      for (int c = 0; c < kOrder; ++c) {
        const char mark = first_rows[block[r / 7][c / 7]][(c % 7 - r % 7 + 7) % 7];
        signs_[r][c] = static_cast<float>((mark == '+' ? 1 : -1) * sign[r / 7][c / 7]);
      }
    }
  }
  const float* row(int64_t r) const { return signs_[r]; }

 private:
  float signs_[kOrder][kOrder];
};

// In place; divided by the square root of the size.
void transform_power_of_two(float* x, int64_t size) {
  isa_kernels().hadamard(x, size, static_cast<float>(1 / std::sqrt(static_cast<double>(size))));
}

void transform_power_of_two(double* x, int64_t size) {
  for (int64_t step = 1; step < size; step *= 2) {
    for (int64_t i = 0; i < size; i += 2 * step) {
      double* a = x + i;
      double* b = a + step;
      for (int64_t j = 0; j < step; ++j) {
        const double sum = a[j] + b[j];
        b[j] = a[j] - b[j];
        a[j] = sum;
      }
    }
  }
  const double factor = 1 / std::sqrt(static_cast<double>(size));
  for (int64_t j = 0; j < size; ++j) {
    x[j] *= factor;
  }
}

// A row of 28 * 2^k numbers is a 28 x 2^k matrix: its rows are transformed, then its columns are
// multiplied by the matrix of order 28, which (as upstream has it) is not normalized.
template <class T>
void transform_row(T* x, int64_t size) {
  if (size % kOrder != 0) {
    transform_power_of_two(x, size);
    return;
  }
  static const Hadamard28 matrix;
  const int64_t columns = size / kOrder;
  for (int64_t r = 0; r < kOrder; ++r) {
    transform_power_of_two(x + r * columns, columns);
  }
  constexpr int64_t kStrip = 16;
  for (int64_t first = 0; first < columns; first += kStrip) {
    const int64_t count = columns - first < kStrip ? columns - first : kStrip;
    T strip[kOrder][kStrip] = {};
    for (int64_t r = 0; r < kOrder; ++r) {
      for (int64_t c = 0; c < kOrder; ++c) {
        const T sign = static_cast<T>(matrix.row(r)[c]);
        for (int64_t j = 0; j < count; ++j) {
          strip[r][j] += sign * x[c * columns + first + j];
        }
      }
    }
    for (int64_t r = 0; r < kOrder; ++r) {
      for (int64_t j = 0; j < count; ++j) {
        x[r * columns + first + j] = strip[r][j];
      }
    }
  }
}

template <class T>
void transform_wide(const void* in, void* out, int64_t row, int64_t size) {
  const T* from = static_cast<const T*>(in) + row * size;
  T* to = static_cast<T*>(out) + row * size;
  for (int64_t j = 0; j < size; ++j) {
    to[j] = from[j];
  }
  transform_row(to, size);
}

void transform_half(bool bfloat16, const void* in, void* out, int64_t row, int64_t size,
                    float* wide) {
  const uint16_t* from = static_cast<const uint16_t*>(in) + row * size;
  uint16_t* to = static_cast<uint16_t*>(out) + row * size;
  for (int64_t j = 0; j < size; ++j) {
    wide[j] = bfloat16 ? bfloat16_to_float(from[j]) : float16_to_float(from[j]);
  }
  transform_row(wide, size);
  for (int64_t j = 0; j < size; ++j) {
    to[j] = bfloat16 ? float_to_bfloat16(wide[j]) : float_to_float16(wide[j]);
  }
}

bool size_fits(int64_t size) {
  const int64_t power = size % kOrder == 0 ? size / kOrder : size;
  return power > 0 && (power & (power - 1)) == 0;
}

bool check(Context& ctx, const char* op, const Tensor& in, const Tensor& out) {
  const ScalarType type = in.scalar_type();
  if ((type != ScalarType::Float && type != ScalarType::Double && type != ScalarType::Half &&
       type != ScalarType::BFloat16) ||
      out.scalar_type() != type || !is_plain(in)) {
    fail(ctx,
         "%s: expected a contiguous Float, Double, Half or BFloat16 tensor and an output of its "
         "dtype, got input "
         "%s, output %s",
         op, TensorText(in).c_str(), TensorText(out).c_str());
    return false;
  }
  constexpr ssize_t kMaxRank = 16;
  if (in.dim() > kMaxRank ||
      (in.dim() > 0 && in.numel() > 0 && !size_fits(in.size(in.dim() - 1)))) {
    fail(ctx, "%s: expected a last dimension of 2^k or 28 * 2^k, got input %s", op,
         TensorText(in).c_str());
    return false;
  }
  int64_t sizes[kMaxRank];
  for (ssize_t d = 0; d < in.dim(); ++d) {
    sizes[d] = in.size(d);
  }
  return resize_output(ctx, op, out, sizes, static_cast<size_t>(in.dim()));
}

}  // namespace

// fast_hadamard_transform.out(mat, *, out!): over the last dimension. A tensor without dimensions
// stays untouched.
void fast_hadamard_transform(Context& ctx, Stack stack) {
  constexpr const char* kOp = "llama::fast_hadamard_transform";
  EventTracerProfileOpScope scope(ctx.internal_event_tracer(), kOp);
  Args args(ctx, stack, kOp, 2);
  const Tensor* in = args.tensor(0);
  const Tensor* out = args.tensor(1);
  if (!args.ok() || !check(ctx, kOp, *in, *out) || in->dim() == 0 || in->numel() == 0) {
    return;
  }
  const int64_t size = in->size(in->dim() - 1);
  const int64_t rows = in->numel() / size;
  const ScalarType type = in->scalar_type();
  const bool half = type == ScalarType::Half || type == ScalarType::BFloat16;
  const int64_t depth = 1 + static_cast<int64_t>(std::log2(static_cast<double>(size)));
  const int64_t threads = threads_for(rows, in->numel() * depth, kWorkPerThread);
  float* wide = half ? scratch_memory(threads * size) : nullptr;
  if (half && wide == nullptr) {
    fail(ctx, "%s: expected memory for a row of %s, got none", kOp, TensorText(*in).c_str());
    return;
  }
  const void* from = in->const_data_ptr();
  void* to = out->mutable_data_ptr();
  run_tasks(rows, threads, [&](int64_t row, int64_t worker) {
    if (half) {
      transform_half(type == ScalarType::BFloat16, from, to, row, size, wide + worker * size);
    } else if (type == ScalarType::Double) {
      transform_wide<double>(from, to, row, size);
    } else {
      transform_wide<float>(from, to, row, size);
    }
  });
}

}  // namespace emm::ops
