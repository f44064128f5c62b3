// Computations number by number on matrices, one pass over memory for several operations.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace emm::linear {

// Loops over n numbers, compiled once for each instruction set; all give the same bits. Of an
// operand that is "one" the first number counts for all.
struct PointwiseLoops {
  using Two = void (*)(const float* a, const float* b, float* to, int64_t n);
  using One = void (*)(const float* a, float* to, int64_t n);
  struct Binary {
    Two both;
    Two one_left;
    Two one_right;
  };
  Binary add;
  Binary subtract;
  Binary multiply;
  One sigmoid;
  One reciprocal_root;
  // Pairs of numbers that lie side by side, turned: (a, b) becomes (a * cosine - b * sine,
  // a * sine + b * cosine), each product and sum rounded.
  void (*rotate)(const float* pairs, const float* cosine, const float* sine, float* to, int64_t n);
};

extern const PointwiseLoops kPlainLoops;
#if defined(__x86_64__)
extern const PointwiseLoops kAvx2Loops;
extern const PointwiseLoops kAvx512Loops;
#endif

struct PointwiseStep {
  const PointwiseLoops::Binary* two = nullptr;
  PointwiseLoops::One one = nullptr;  // where `two` is null
  size_t a = 0;                       // indices of values
  size_t b = 0;
  size_t to = 0;
};

struct PointwisePlan {
  // Where a value's numbers lie: rows and columns that it lacks are the same for all.
  struct Value {
    bool has_rows = false;
    bool has_columns = false;
    bool is_outside = false;  // an input or an output; others live while a row is computed
  };
  static constexpr size_t kMaxValues = 48;
  static constexpr size_t kMaxSteps = 16;

  int64_t columns = 0;
  std::vector<Value> values;         // at most kMaxValues
  std::vector<PointwiseStep> steps;  // at most kMaxSteps, each behind those that it needs

  // Rows [begin, end). memory[v] is where an outside value begins.
  void run(const std::vector<float*>& memory, int64_t begin, int64_t end) const;
};

}  // namespace emm::linear
