// The tensors of a loaded method, all of them: ExecuTorch hands out inputs and outputs only.
#pragma once

#include <executorch/extension/module/module.h>

#include <string>
#include <vector>

namespace emm {

// In the order of the program's values. They live as long as the method is loaded, whose lists of
// tensors refer to the same ones.
std::vector<executorch::aten::TensorImpl*> method_tensors(executorch::extension::Module& module,
                                                          const std::string& method);

}  // namespace emm
