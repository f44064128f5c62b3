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

namespace {

bool is_ours(const std::string& variable, bool usually = true) {
  const char* value = std::getenv(variable.c_str());
  if (value == nullptr || value[0] == '\0') return usually;
  const std::string name = value;
  if (name == "own") return true;
  if (name == "xnnpack") return false;
  throw Error(ErrorCode::kInput, variable + ": expected 'own', 'xnnpack', got '" + name + "'");
}

LinearChoice with(const std::string& kernels) {
  return {kernels, is_ours("EXECUTORCH_MM_POINTWISE"), is_ours("EXECUTORCH_MM_ROTARY"), false};
}

// What is ours unless somebody asks for more. With loops of ours, rows were seen to come out in
// the last bit by how many a call reads.
LinearChoice usual(const std::string& kernels) {
  return {kernels, is_ours("EXECUTORCH_MM_POINTWISE", false), is_ours("EXECUTORCH_MM_ROTARY"),
          true};
}

}  // namespace

LinearChoice choose_linear(const std::string& wish) {
  std::string name = wish;
  std::string of = "linear";
  if (name == "auto") {
    const char* variable = std::getenv("EXECUTORCH_MM_LINEAR");
    if (variable != nullptr && variable[0] != '\0') {
      name = variable;
      of = "EXECUTORCH_MM_LINEAR";
    }
  }
  const std::string best = linear::usable_kernels().front()->name;
  // Ours where they were measured to be faster (benchmarks/LOG.md).
  if (name == "auto" && best == "avx2") return usual(best);
  if (name == "auto" || name == "xnnpack") return {};
  if (name == "own") return with(best);
  if (linear::find_kernels(name) != nullptr) return with(name);
  std::string known = "'auto', 'xnnpack', 'own'";
  for (const std::string& kernels : linear_kernel_names()) known += ", '" + kernels + "'";
  throw Error(ErrorCode::kInput, of + ": expected " + known + ", got '" + name + "'");
}

}  // namespace emm
