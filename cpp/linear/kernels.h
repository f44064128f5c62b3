// What is compiled once for each instruction set, and the choice among them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "linear/layer.h"
#include "linear/pointwise.h"
#include "linear/quantise.h"

namespace emm::linear {

// Where a row's integers and what belongs to them go; see Activations.
struct RowTarget {
  int8_t* values;
  int32_t* offsets8;
  int32_t* offsets32;
};

struct Kernels {
  const char* name;
  // The order of the inputs (Activations::chunk) that rows() and columns() expect with 4-bit
  // weights.
  int64_t row_chunk;
  int64_t column_chunk;
  // rows() takes up to this many rows of activations, with 4-bit groups and with the other formats.
  int64_t most_group_rows;
  int64_t most_rows;
  // Outputs that columns() computes at a time.
  int64_t block;

  // Quantises one row of x. `plain` has room for padded(inputs) bytes.
  RowScale (*quantise)(const float* x, int64_t inputs, int64_t chunk, int8_t* plain,
                       const RowTarget& target);

  // Outputs [begin, end) of few rows of activations, straight from the weights. `sums` are the sums
  // of the weights of each output, times their scales where they have groups; null: writes the bare
  // sums of products. Row i of the output begins at out + i * layer.outputs.
  void (*rows)(const Layer& layer, const Activations& in, const float* sums, int64_t begin,
               int64_t end, float* out);

  // The same for many rows and at most `block` outputs, through a copy of their weights in another
  // order, for which `scratch` has room (column_scratch() bytes, aligned to 64).
  void (*columns)(const Layer& layer, const Activations& in, const float* sums, int64_t begin,
                  int64_t end, uint8_t* scratch, float* out);
  int64_t (*column_scratch)(const Layer& layer);

  const PointwiseLoops* pointwise;
};

extern const Kernels kReferenceKernels;
#if defined(__x86_64__)
extern const Kernels kAvx2Kernels;
extern const Kernels kAvxVnniKernels;
extern const Kernels kAvx512VnniKernels;
extern const Kernels kAmxKernels;  // see amx.h before use
#elif defined(__aarch64__)
extern const Kernels kDotprodKernels;
extern const Kernels kI8mmKernels;
#endif

// Those that this machine runs, the best first; the last is the plain C++ reference.
const std::vector<const Kernels*>& usable_kernels();

// Names of those that are used only where they are asked for: see amx.h.
std::vector<std::string> kernels_on_request();

// By name; null for one that this machine lacks.
const Kernels* find_kernels(const std::string& name);

}  // namespace emm::linear
