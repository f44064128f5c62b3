// Our kernels as an ExecuTorch backend, for the XNNPACK graphs that are linear layers.
#pragma once

namespace emm {

// Its name in a program that patched_loader.h has renamed.
constexpr const char* kLinearBackend = "EmmLinearBackend";
// The option that names the kernels to use.
constexpr const char* kLinearKernelsOption = "kernels";
// The one that says whether weights are copied to large pages.
constexpr const char* kLinearCopiesOption = "copies";

// Makes it known to ExecuTorch, once in a process. Throws Error(kLoad).
void register_linear_backend();

}  // namespace emm
