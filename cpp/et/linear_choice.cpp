#include "et/linear_choice.h"

#include <cstdlib>

#include "base/error.h"
#include "linear/kernels.h"

namespace emm {

std::vector<std::string> linear_kernel_names() {
  std::vector<std::string> names;
  for (const linear::Kernels* kernels : linear::usable_kernels()) names.emplace_back(kernels->name);
  return names;
}

std::string choose_linear(const std::string& wish) {
  std::string name = wish;
  std::string of = "linear";
  if (name == "auto") {
    const char* variable = std::getenv("EXECUTORCH_MM_LINEAR");
    if (variable != nullptr && variable[0] != '\0') {
      name = variable;
      of = "EXECUTORCH_MM_LINEAR";
    }
  }
  if (name == "xnnpack") return "";
  const linear::Kernels& best = *linear::usable_kernels().front();
  // The reference is slower than XNNPACK: it is for tests.
  if (name == "auto") return &best == &linear::kReferenceKernels ? "" : best.name;
  if (name == "own") return best.name;
  if (linear::find_kernels(name) != nullptr) return name;
  std::string known = "'auto', 'xnnpack', 'own'";
  for (const std::string& kernels : linear_kernel_names()) known += ", '" + kernels + "'";
  throw Error(ErrorCode::kInput, of + ": expected " + known + ", got '" + name + "'");
}

}  // namespace emm
