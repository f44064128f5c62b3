// Who runs the linear layers of a program: XNNPACK, or our kernels of one instruction set.
#pragma once

#include <string>
#include <vector>

namespace emm {

// Instruction sets of our kernels that this machine has, the best first; "reference" is the last.
std::vector<std::string> linear_kernel_names();

// The name of the kernels to use, empty for XNNPACK. `wish` is LoadOptions::linear; where it is
// "auto", the environment variable EXECUTORCH_MM_LINEAR takes its place. Throws Error(kInput).
std::string choose_linear(const std::string& wish);

}  // namespace emm
