// Checks that the readers of all kinds of contracts share. What does not fit is an Error(kContract)
// that names the method, what was expected and what the program has.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "model/contract.h"

namespace emm {

using DTypes = std::initializer_list<DType>;
inline constexpr DTypes kIds = {DType::kInt64, DType::kInt32};
inline constexpr DTypes kFloats = {DType::kFloat32, DType::kFloat16, DType::kBFloat16};

[[noreturn]] void refuse_contract(const std::string& message);

enum class Side { kInput, kOutput };

// "joint: input 1"
std::string place_name(const MethodSpec& method, Side side, size_t index);

// The input or output, a tensor of this rank and one of these dtypes.
const TensorSpec& expect_tensor(const MethodSpec& method, Side side, size_t index, size_t rank,
                                DTypes dtypes);

// A constant method's int or list of ints; empty where the program has no such method.
std::vector<int64_t> int_list(const Signatures& signatures, const std::string& name);
// The first of them.
std::optional<int64_t> one_int(const Signatures& signatures, const std::string& name);

}  // namespace emm
