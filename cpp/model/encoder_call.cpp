#include "model/encoder_call.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "model/convert.h"

namespace emm {
namespace {

// Gemma 4's audio encoder reads blocks of 48 frames, the last one 25 short: 71, 119, ... 2999.
constexpr int64_t kBlockFrames = 48;
constexpr int64_t kLastBlockFrames = 23;

TensorView nothing_of(const TensorSpec& spec) { return {nullptr, spec.dtype, spec.shape}; }

// Without a batch of one.
TensorView without_batch(TensorView view, size_t rank) {
  if (view.shape.size() == rank + 1 && view.shape[0] == 1) view.shape.erase(view.shape.begin());
  return view;
}

int64_t element(const TensorView& view, int64_t index) {
  switch (view.dtype) {
    case DType::kBool:
    case DType::kUInt8:
    case DType::kInt8:
      return static_cast<const int8_t*>(view.data)[index];
    case DType::kInt32:
      return static_cast<const int32_t*>(view.data)[index];
    case DType::kInt64:
      return static_cast<const int64_t*>(view.data)[index];
    case DType::kFloat16:
    case DType::kBFloat16:
      return (static_cast<const uint16_t*>(view.data)[index] & 0x7FFFu) != 0;
    case DType::kFloat32:
      return static_cast<const float*>(view.data)[index] != 0.0f;
    default:
      return 0;
  }
}

template <typename Number>
void put(std::vector<uint8_t>& bytes, Number value) {
  const auto* from = reinterpret_cast<const uint8_t*>(&value);
  bytes.insert(bytes.end(), from, from + sizeof value);
}

void append(std::vector<uint8_t>& bytes, DType dtype, int64_t value) {
  switch (dtype) {
    case DType::kInt32:
      return put(bytes, static_cast<int32_t>(value));
    case DType::kInt64:
      return put(bytes, value);
    case DType::kFloat32:
      return put(bytes, static_cast<float>(value));
    case DType::kFloat16:
      return put(bytes, float_to_float16(static_cast<float>(value)));
    case DType::kBFloat16:
      return put(bytes, float_to_bfloat16(static_cast<float>(value)));
    default:
      return put(bytes, static_cast<int8_t>(value));
  }
}

bool is_integer(DType dtype) {
  return dtype == DType::kBool || dtype == DType::kUInt8 || dtype == DType::kInt8 ||
         dtype == DType::kInt32 || dtype == DType::kInt64;
}

[[noreturn]] void refuse(const std::string& what, const std::string& message) {
  throw Error(ErrorCode::kInput, what + ": " + message);
}

}  // namespace

int64_t padded_length(const TensorSpec& values, int64_t num_frames) {
  const int64_t bound = values.shape[1];
  if (num_frames > bound) return 0;
  if (!values.is_dynamic) return bound;
  if (bound <= kBlockFrames + kLastBlockFrames || bound % kBlockFrames != kLastBlockFrames)
    return num_frames;
  const int64_t missing = kBlockFrames - kLastBlockFrames;
  const int64_t blocks = (num_frames + missing + kBlockFrames - 1) / kBlockFrames;
  return std::max<int64_t>(blocks, 2) * kBlockFrames - missing;
}

std::vector<TensorView> EncoderCall::inputs(const MethodSpec& encoder, const MediaView& given,
                                            const std::string& what) {
  const EncoderPlaces places = encoder_places(encoder);
  const TensorSpec& wanted = encoder.inputs[static_cast<size_t>(places.values)];
  const bool has_positions = places.positions >= 0;
  const TensorView frames = without_batch(given.values, 2);
  const int64_t width = wanted.shape[2];
  if (frames.shape.size() != 2 || frames.shape[1] != width || frames.shape[0] < 1) {
    refuse(what, encoder.name + " expects " + nothing_of(wanted).describe() + ", got " +
                     given.values.describe());
  }
  if (!all_finite(frames)) refuse(what, "expected finite values, got NaN or infinity");
  num_given_ = frames.shape[0];
  // A count of rows that does not follow the patches is that of the most patches.
  const bool is_free = has_positions && wanted.is_dynamic &&
                       encoder.outputs[static_cast<size_t>(places.rows)].is_dynamic;
  int64_t length = padded_length(wanted, num_given_);
  if (has_positions && length != 0) length = is_free ? num_given_ : wanted.shape[1];
  if (length == 0) {
    refuse(what, encoder.name + " takes at most " + std::to_string(wanted.shape[1]) +
                     (has_positions ? " patches, got " : " frames, got ") +
                     std::to_string(num_given_));
  }

  TensorView values = convert(frames, wanted.dtype, values_, what);
  if (length > num_given_) {
    padded_values_.assign(static_cast<size_t>(length * width) * dtype_size(wanted.dtype), 0);
    std::memcpy(padded_values_.data(), values.data, values.size_bytes());
    values.data = padded_values_.data();
  }
  if (values.data != given.values.data)
    copied_bytes_ += static_cast<int64_t>(given.values.size_bytes());
  values.shape = {1, length, width};

  const int place = has_positions ? places.positions : places.mask;
  const TensorSpec& beside = encoder.inputs[static_cast<size_t>(place)];
  const bool is_given = given.beside.dtype != DType::kOther;
  const int64_t each = has_positions ? 2 : 1;
  if (!is_given && has_positions)
    refuse(what, "expected position ids (" + std::to_string(num_given_) +
                     ", 2) beside the patches, got none");
  if (is_given && (!is_integer(given.beside.dtype) || given.beside.size() != num_given_ * each)) {
    const std::string shape =
        std::to_string(num_given_) + (has_positions ? ", 2) position ids" : ",) bool");
    refuse(what, "expected (" + shape + " beside the values, got " + given.beside.describe());
  }
  beside_.clear();
  num_valid_ = 0;
  for (int64_t i = 0; i < length; ++i) {
    bool counts = i < num_given_;
    for (int64_t j = 0; j < each; ++j) {
      int64_t value = i < num_given_ ? (is_given ? element(given.beside, i * each + j) : 1)
                                     : (has_positions ? -1 : 0);
      if (has_positions && value < -1)
        refuse(what, "expected position ids of -1 or more, got " + std::to_string(value));
      if (!has_positions) value = value != 0;
      counts = counts && (has_positions ? value >= 0 : value != 0);
      append(beside_, beside.dtype, value);
    }
    num_valid_ += counts;
  }
  if (num_valid_ == 0)
    refuse(what, has_positions ? "expected patches that are no padding, got none"
                               : "expected frames that are no padding, got none");
  num_given_ = length;

  std::vector<TensorView> made(2);
  made[static_cast<size_t>(places.values)] = values;
  TensorView& other = made[static_cast<size_t>(place)];
  other = {beside_.data(), beside.dtype, {1, length}};
  if (has_positions) other.shape.push_back(2);
  if (beside.shape.size() == 1) other.shape = {length};
  return made;
}

TensorView EncoderCall::rows(const MethodSpec& encoder, const std::vector<TensorView>& outputs) {
  const EncoderPlaces places = encoder_places(encoder);
  TensorView rows = outputs.at(static_cast<size_t>(places.rows));
  const int64_t columns = rows.shape.back();
  rows.shape = {columns == 0 ? 0 : rows.size() / columns, columns};
  const int64_t total = rows.shape[0];
  if (places.rows_mask < 0) {
    // What was filled up makes rows too, in the same proportion.
    const bool is_padded = places.mask >= 0 || places.positions >= 0;
    if (!is_padded || num_given_ == 0) return rows;
    return row_range(rows, 0, (total * num_valid_ + num_given_ - 1) / num_given_);
  }
  const TensorView& mask = outputs.at(static_cast<size_t>(places.rows_mask));
  if (mask.size() != total) {
    throw Error(ErrorCode::kExecution, encoder.name + ": expected a mask of " +
                                           std::to_string(total) + " rows, got " + mask.describe());
  }
  int64_t num_kept = 0;
  int64_t last = -1;
  for (int64_t i = 0; i < total; ++i) {
    if (element(mask, i) == 0) continue;
    ++num_kept;
    last = i;
  }
  if (num_kept == last + 1) return row_range(rows, 0, num_kept);
  rows_.clear();
  for (int64_t i = 0; i <= last; ++i) {
    if (element(mask, i) == 0) continue;
    const TensorView row = row_range(rows, i, 1);
    const auto* bytes = static_cast<const uint8_t*>(row.data);
    rows_.insert(rows_.end(), bytes, bytes + row.size_bytes());
  }
  return {rows_.data(), rows.dtype, {num_kept, columns}};
}

}  // namespace emm
