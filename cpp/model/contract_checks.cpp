#include "model/contract_checks.h"

#include <algorithm>

#include "base/error.h"

namespace emm {
namespace {

std::string names_of(DTypes dtypes) {
  std::string names;
  for (const DType& dtype : dtypes) {
    if (&dtype != dtypes.begin()) names += &dtype + 1 == dtypes.end() ? " or " : ", ";
    names += dtype_name(dtype);
  }
  return names;
}

}  // namespace

void refuse_contract(const std::string& message) { throw Error(ErrorCode::kContract, message); }

std::string place_name(const MethodSpec& method, Side side, size_t index) {
  return method.name + (side == Side::kInput ? ": input " : ": output ") + std::to_string(index);
}

const TensorSpec& expect_tensor(const MethodSpec& method, Side side, size_t index, size_t rank,
                                DTypes dtypes) {
  const auto& specs = side == Side::kInput ? method.inputs : method.outputs;
  const std::string where = place_name(method, side, index);
  if (index >= specs.size())
    refuse_contract(where + " is missing: the method has " + std::to_string(specs.size()));
  const TensorSpec& spec = specs[index];
  const bool dtype_fits = std::find(dtypes.begin(), dtypes.end(), spec.dtype) != dtypes.end();
  if (spec.shape.size() != rank || !dtype_fits) {
    refuse_contract(where + ": expected a tensor of rank " + std::to_string(rank) + " and dtype " +
                    names_of(dtypes) + ", got " + dtype_name(spec.dtype) + " " +
                    shape_string(spec.shape));
  }
  return spec;
}

std::vector<int64_t> int_list(const Signatures& signatures, const std::string& name) {
  const auto found = signatures.metadata.find(name);
  if (found == signatures.metadata.end()) return {};
  if (const auto* one = std::get_if<int64_t>(&found->second)) return {*one};
  if (const auto* many = std::get_if<std::vector<int64_t>>(&found->second)) return *many;
  refuse_contract(name + ": expected an int or a list of ints");
}

std::optional<int64_t> one_int(const Signatures& signatures, const std::string& name) {
  const std::vector<int64_t> values = int_list(signatures, name);
  if (values.empty()) return std::nullopt;
  return values[0];
}

}  // namespace emm
