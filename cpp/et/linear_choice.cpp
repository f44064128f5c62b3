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
  // Our decode steps are slower than XNNPACK's so far (benchmarks/LOG.md).
  if (name == "auto" || name == "xnnpack") return "";
  if (name == "own") return linear::usable_kernels().front()->name;
  if (linear::find_kernels(name) != nullptr) return name;
  std::string known = "'auto', 'xnnpack', 'own'";
  for (const std::string& kernels : linear_kernel_names()) known += ", '" + kernels + "'";
  throw Error(ErrorCode::kInput, of + ": expected " + known + ", got '" + name + "'");
}

}  // namespace emm
