// Who runs the linear layers of a program: XNNPACK, or our kernels of one instruction set.
#pragma once

#include <string>
#include <vector>

namespace emm {

// Instruction sets of our kernels that this machine has, the best first; "reference" is the last.
std::vector<std::string> linear_kernel_names();
// Others that it has, which only their name chooses.
std::vector<std::string> linear_kernels_on_request();

struct LinearChoice {
  std::string kernels;     // empty: XNNPACK runs all graphs
  bool pointwise = false;  // beside them, graphs that compute number by number are ours too
  bool rotary = false;     // and rotary embeddings, with the copies around them
  bool equal_calls =
      false;               // and instructions that compute once more what another has are left out
  bool only_int4 = false;  // our kernels run graphs of 4-bit weights in groups, XNNPACK the others
};

// `wish` is LoadOptions::linear; where it is "auto", the environment variable EXECUTORCH_MM_LINEAR
// takes its place. EXECUTORCH_MM_POINTWISE=xnnpack and EXECUTORCH_MM_ROTARY=xnnpack leave XNNPACK
// what is no linear layer, EXECUTORCH_MM_EQUAL_CALLS=executorch keeps equal instructions. Throws
// Error(kInput).
LinearChoice choose_linear(const std::string& wish);

// Whether our kernels get a copy of the weights. `wish` is LoadOptions::linear_weights; where it is
// "auto", EXECUTORCH_MM_LINEAR_WEIGHTS takes its place, and else they read them in place. Throws
// Error(kInput).
bool choose_copies(const std::string& wish);

}  // namespace emm
