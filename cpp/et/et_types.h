// Between ExecuTorch's element types and ours.
#pragma once

#include <executorch/runtime/core/exec_aten/exec_aten.h>

#include <optional>

#include "base/dtype.h"

namespace emm {

inline DType from_scalar_type(executorch::aten::ScalarType type) {
  using executorch::aten::ScalarType;
  switch (type) {
    case ScalarType::Byte:
      return DType::kUInt8;
    case ScalarType::Char:
      return DType::kInt8;
    case ScalarType::UInt16:
      return DType::kUInt16;
    case ScalarType::Int:
      return DType::kInt32;
    case ScalarType::Long:
      return DType::kInt64;
    case ScalarType::Half:
      return DType::kFloat16;
    case ScalarType::BFloat16:
      return DType::kBFloat16;
    case ScalarType::Float:
      return DType::kFloat32;
    case ScalarType::Double:
      return DType::kFloat64;
    case ScalarType::Bool:
      return DType::kBool;
    default:
      return DType::kOther;
  }
}

inline executorch::aten::ScalarType to_scalar_type(DType dtype) {
  using executorch::aten::ScalarType;
  switch (dtype) {
    case DType::kUInt8:
      return ScalarType::Byte;
    case DType::kInt8:
      return ScalarType::Char;
    case DType::kUInt16:
      return ScalarType::UInt16;
    case DType::kInt32:
      return ScalarType::Int;
    case DType::kInt64:
      return ScalarType::Long;
    case DType::kFloat16:
      return ScalarType::Half;
    case DType::kBFloat16:
      return ScalarType::BFloat16;
    case DType::kFloat32:
      return ScalarType::Float;
    case DType::kFloat64:
      return ScalarType::Double;
    case DType::kBool:
      return ScalarType::Bool;
    case DType::kOther:
      break;
  }
  return ScalarType::Undefined;
}

}  // namespace emm
