// Arrays that Python hands in, as views of the same memory, and floats that it gets.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/tensor_view.h"
#include "bindings/bindings.h"

namespace emm::bindings {

using Array = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;

inline DType to_dtype(const nb::dlpack::dtype& type) {
  if (type == nb::dtype<uint8_t>()) return DType::kUInt8;
  if (type == nb::dtype<int32_t>()) return DType::kInt32;
  if (type == nb::dtype<int64_t>()) return DType::kInt64;
  if (type == nb::dtype<float>()) return DType::kFloat32;
  if (type == nb::dtype<double>()) return DType::kFloat64;
  constexpr auto kFloatCode = static_cast<uint8_t>(nb::dlpack::dtype_code::Float);
  constexpr auto kBfloatCode = static_cast<uint8_t>(nb::dlpack::dtype_code::Bfloat);
  if (type.lanes == 1 && type.bits == 16 && type.code == kFloatCode) return DType::kFloat16;
  if (type.lanes == 1 && type.bits == 16 && type.code == kBfloatCode) return DType::kBFloat16;
  throw Error(ErrorCode::kInput,
              "array: expected uint8, int32, int64, float16, bfloat16, float32 or float64, got "
              "DLPack type code " +
                  std::to_string(type.code) + " with " + std::to_string(type.bits) + " bits");
}

inline TensorView to_view(const Array& array) {
  TensorView view{array.data(), to_dtype(array.dtype()), {}};
  for (size_t i = 0; i < array.ndim(); ++i)
    view.shape.push_back(static_cast<int64_t>(array.shape(i)));
  return view;
}

using FloatArray = nb::ndarray<nb::numpy, float>;

// The array takes over the memory of the values.
inline FloatArray to_array(std::vector<float> values, const Shape& shape) {
  auto* kept = new std::vector<float>(std::move(values));
  const nb::capsule owner(
      kept, [](void* pointer) noexcept { delete static_cast<std::vector<float>*>(pointer); });
  const std::vector<size_t> sizes(shape.begin(), shape.end());
  return FloatArray(kept->data(), sizes.size(), sizes.data(), owner);
}

}  // namespace emm::bindings
