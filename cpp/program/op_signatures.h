// What kinds of arguments the operators take, so that a program can be checked against them before
// a kernel takes them apart: a wrong kind or number makes ExecuTorch abort or read beyond the list.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

namespace emm {

// One letter for each argument of a call in order, with what is returned at the end.
//   T tensor, o tensor that the kernel writes, A list of tensors, w list of tensors that it writes,
//   P list of optional tensors, I int, D double, B bool, S any number, L ints, F doubles, V bools,
//   Z string, X number that the kernel writes.
// Lower case t i d b s l f v z: may be absent.
struct OpSignature {
  std::string_view name;
  std::string_view args;     // with the outputs that are arguments
  std::string_view returns;  // repeats those outputs, as a list where there are several

  size_t num_args() const { return args.size() + returns.size(); }
  char kind(size_t arg) const {
    return arg < args.size() ? args[arg] : (returns[arg - args.size()] == 'A' ? 'w' : 'o');
  }
  // The call fills the argument without a look at what was there.
  bool is_output(size_t arg) const {
    if (name.substr(0, name.find('.')).back() == '_') return false;  // works in place
    const size_t last_input = args.find_last_not_of("ow");
    return last_input == args.npos || arg > last_input;
  }
};

// Nothing for an operator that neither the SDK nor cpp/ops has.
std::optional<OpSignature> op_signature(std::string_view name);

}  // namespace emm
