#include "model/convert.h"

#include <array>
#include <string>

#include "base/error.h"

namespace emm {
namespace {

template <typename In, typename Out, typename Function>
void map(const TensorView& source, std::vector<uint8_t>& buffer, Function function) {
  const int64_t size = source.size();
  buffer.resize(static_cast<size_t>(size) * sizeof(Out));
  const In* in = static_cast<const In*>(source.data);
  Out* out = reinterpret_cast<Out*>(buffer.data());
  for (int64_t i = 0; i < size; ++i) out[i] = function(in[i]);
}

template <typename In, typename ToFloat>
bool to_float_kind(const TensorView& source, DType wanted, std::vector<uint8_t>& buffer,
                   ToFloat to_float) {
  switch (wanted) {
    case DType::kFloat32:
      map<In, float>(source, buffer, to_float);
      return true;
    case DType::kFloat16:
      map<In, uint16_t>(source, buffer,
                        [&](In value) { return float_to_float16(to_float(value)); });
      return true;
    case DType::kBFloat16:
      map<In, uint16_t>(source, buffer,
                        [&](In value) { return float_to_bfloat16(to_float(value)); });
      return true;
    default:
      return false;
  }
}

bool convert_elements(const TensorView& source, DType wanted, std::vector<uint8_t>& buffer) {
  switch (source.dtype) {
    case DType::kInt64:
      if (wanted != DType::kInt32) return false;
      map<int64_t, int32_t>(source, buffer,
                            [](int64_t value) { return static_cast<int32_t>(value); });
      return true;
    case DType::kFloat16:
      return to_float_kind<uint16_t>(source, wanted, buffer, float16_to_float);
    case DType::kBFloat16:
      return to_float_kind<uint16_t>(source, wanted, buffer, bfloat16_to_float);
    case DType::kFloat32:
      return to_float_kind<float>(source, wanted, buffer, [](float value) { return value; });
    case DType::kFloat64:
      return to_float_kind<double>(source, wanted, buffer,
                                   [](double value) { return static_cast<float>(value); });
    default:
      return false;
  }
}

// By a table: there are only 256 results, and 16-bit floats are slow to make.
TensorView to_unit(const TensorView& source, DType wanted, std::vector<uint8_t>& buffer) {
  std::array<float, 256> units{};
  for (size_t i = 0; i < units.size(); ++i) units[i] = static_cast<float>(i) / 255.0f;
  if (wanted == DType::kFloat32) {
    map<uint8_t, float>(source, buffer, [&](uint8_t value) { return units[value]; });
  } else {
    std::vector<uint8_t> narrow;
    convert_elements({units.data(), DType::kFloat32, {256}}, wanted, narrow);
    const auto* table = reinterpret_cast<const uint16_t*>(narrow.data());
    map<uint8_t, uint16_t>(source, buffer, [&](uint8_t value) { return table[value]; });
  }
  return {buffer.data(), wanted, source.shape};
}

TensorView to_bytes(const TensorView& source, std::vector<uint8_t>& buffer) {
  const auto* values = static_cast<const float*>(source.data);
  const int64_t size = source.size();
  int64_t num_outside = 0;
  for (int64_t i = 0; i < size; ++i) num_outside += !(values[i] >= 0.0f && values[i] <= 1.0f);
  if (num_outside != 0) {
    throw Error(
        ErrorCode::kInput,
        "image: the encoder takes bytes: expected uint8, or floats in 0..1, got floats with " +
            std::to_string(num_outside) + " values beyond");
  }
  map<float, uint8_t>(source, buffer,
                      [](float value) { return static_cast<uint8_t>(value * 255.0f + 0.5f); });
  return {buffer.data(), DType::kUInt8, source.shape};
}

// An exponent of all ones is an infinity or a NaN.
template <typename Word>
bool no_exponent_is_full(const TensorView& view, Word exponent_mask) {
  const Word* words = static_cast<const Word*>(view.data);
  const int64_t size = view.size();
  int64_t num_full = 0;
  for (int64_t i = 0; i < size; ++i) num_full += (words[i] & exponent_mask) == exponent_mask;
  return num_full == 0;
}

}  // namespace

TensorView convert(const TensorView& source, DType wanted, std::vector<uint8_t>& buffer,
                   const std::string& what) {
  if (source.dtype == wanted) return source;
  if (!convert_elements(source, wanted, buffer)) {
    throw Error(ErrorCode::kInput,
                what + ": expected " + dtype_name(wanted) + ", got " + dtype_name(source.dtype));
  }
  return {buffer.data(), wanted, source.shape};
}

TensorView convert_image(const TensorView& source, DType wanted, std::vector<uint8_t>& buffer) {
  const bool is_float =
      wanted == DType::kFloat32 || wanted == DType::kFloat16 || wanted == DType::kBFloat16;
  if (source.dtype == DType::kUInt8 && is_float) return to_unit(source, wanted, buffer);
  if (wanted != DType::kUInt8 || source.dtype == DType::kUInt8)
    return convert(source, wanted, buffer, "image");
  std::vector<uint8_t> floats;
  return to_bytes(convert(source, DType::kFloat32, floats, "image"), buffer);
}

bool all_finite(const TensorView& view) {
  switch (view.dtype) {
    case DType::kFloat16:
      return no_exponent_is_full<uint16_t>(view, 0x7C00u);
    case DType::kBFloat16:
      return no_exponent_is_full<uint16_t>(view, 0x7F80u);
    case DType::kFloat32:
      return no_exponent_is_full<uint32_t>(view, 0x7F800000u);
    case DType::kFloat64:
      return no_exponent_is_full<uint64_t>(view, 0x7FF0000000000000u);
    default:
      return true;
  }
}

}  // namespace emm
