#include "et/linear_choice.h"

#include <cstdlib>

#include "base/error.h"
#include "base/log.h"
#include "linear/amx.h"
#include "linear/kernels.h"

namespace emm {

std::vector<std::string> linear_kernel_names() {
  std::vector<std::string> names;
  for (const linear::Kernels* kernels : linear::usable_kernels()) names.emplace_back(kernels->name);
  return names;
}

std::vector<std::string> linear_kernels_on_request() { return linear::kernels_on_request(); }

namespace {

// Those of this name, or what takes their place.
std::string available(const std::string& name) {
  const linear::Kernels* found = linear::find_kernels(name);
  if (found == nullptr || found->name == name) return name;
  LogQueue::instance().push({LogLevel::kInfo, "linear_choice.cpp", __LINE__,
                             std::string(linear::ask_for_amx().problem) + ": " + found->name +
                                 " runs the linear layers"});
  return found->name;
}

// Unless the variable names `other`, who runs it without us.
bool is_ours(const std::string& variable, const std::string& other) {
  const char* value = std::getenv(variable.c_str());
  const std::string name = value == nullptr ? "" : value;
  if (name.empty() || name == "own") return true;
  if (name == other) return false;
  throw Error(ErrorCode::kInput,
              variable + ": expected 'own', '" + other + "', got '" + name + "'");
}

// Whoever asks for our kernels gets them for all linear layers, else they run 4-bit groups.
LinearChoice with(const std::string& kernels, bool is_asked_for = true) {
  LinearChoice choice;
  choice.kernels = kernels;
  choice.pointwise = is_ours("EXECUTORCH_MM_POINTWISE", "xnnpack");
  choice.rotary = is_ours("EXECUTORCH_MM_ROTARY", "xnnpack");
  choice.equal_calls = is_ours("EXECUTORCH_MM_EQUAL_CALLS", "executorch");
  choice.only_int4 = !is_asked_for;
  return choice;
}

struct Wish {
  std::string name;
  std::string of;  // the option or the variable
};

Wish wished(const std::string& wish, const char* option, const char* variable) {
  const char* value = wish == "auto" ? std::getenv(variable) : nullptr;
  if (value == nullptr || value[0] == '\0') return {wish, option};
  return {value, variable};
}

}  // namespace

LinearChoice choose_linear(const std::string& wish) {
  const auto [name, of] = wished(wish, "linear", "EXECUTORCH_MM_LINEAR");
  const std::string best = linear::usable_kernels().front()->name;
  // Ours where they were measured to be faster (benchmarks/LOG.md).
  if (name == "auto" && (best == "avx512vnni" || best == "avxvnni" || best == "avx2"))
    return with(best, false);
  if (name == "auto" || name == "xnnpack") return {};
  if (name == "own") return with(best);
  if (linear::find_kernels(name) != nullptr) return with(available(name));
  std::string known = "'auto', 'xnnpack', 'own'";
  for (const auto& names : {linear_kernel_names(), linear_kernels_on_request()}) {
    for (const std::string& kernels : names) known += ", '" + kernels + "'";
  }
  throw Error(ErrorCode::kInput, of + ": expected " + known + ", got '" + name + "'");
}

bool choose_copies(const std::string& wish) {
  const auto [name, of] = wished(wish, "linear_weights", "EXECUTORCH_MM_LINEAR_WEIGHTS");
  if (name == "copied") return true;
  if (name == "auto" || name == "in_place") return false;
  throw Error(ErrorCode::kInput,
              of + ": expected 'auto', 'in_place', 'copied', got '" + name + "'");
}

}  // namespace emm
