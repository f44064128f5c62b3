#include "et/folder_inputs.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "base/error.h"
#include "model/convert.h"

namespace emm {
namespace {

template <typename Element>
void fill(std::vector<uint8_t>& buffer, int64_t count, int64_t first, int64_t step) {
  buffer.resize(static_cast<size_t>(count) * sizeof(Element));
  auto* elements = reinterpret_cast<Element*>(buffer.data());
  for (int64_t i = 0; i < count; ++i) elements[i] = static_cast<Element>(first + i * step);
}

void fill(DType dtype, std::vector<uint8_t>& buffer, int64_t count, int64_t first, int64_t step) {
  if (dtype == DType::kInt64) return fill<int64_t>(buffer, count, first, step);
  if (dtype == DType::kInt32) return fill<int32_t>(buffer, count, first, step);
  if (dtype == DType::kBool || dtype == DType::kUInt8)
    return fill<uint8_t>(buffer, count, first, step);
  if (dtype == DType::kFloat32) return fill<float>(buffer, count, first, step);
  // Zero is zero in every type.
  if (first != 0 || step != 0)
    throw Error(ErrorCode::kExecution, std::string("cannot count in ") + dtype_name(dtype));
  buffer.assign(static_cast<size_t>(count) * dtype_size(dtype), 0);
}

}  // namespace

TensorView make_folder_input(const PartInput& input, const FolderAsk& ask,
                             std::vector<uint8_t>& buffer) {
  const int64_t end = ask.position + ask.num_tokens;
  TensorView view{nullptr, input.dtype, {}};
  switch (input.feed) {
    case Feed::kNone:
    case Feed::kCache:
      return {};
    case Feed::kMedia:
    case Feed::kEmbeddings:
      return ask.media;
    case Feed::kIds:
      return convert({ask.ids, DType::kInt64, {1, ask.num_tokens}}, input.dtype, buffer, "tokens");
    case Feed::kTypes:
      view.shape = {1, ask.num_tokens};
      fill(input.dtype, buffer, view.size(), 0, 0);
      break;
    case Feed::kZeros:
    case Feed::kOnes:
      view.shape = input.shape;
      fill(input.dtype, buffer, view.size(), input.feed == Feed::kOnes ? 1 : 0, 0);
      break;
    case Feed::kLength:
      view.shape = input.shape;
      fill(DType::kInt64, buffer, 1, ask.position, 0);
      break;
    case Feed::kPositions:
      view.shape = input.shape;
      view.shape.back() = ask.num_tokens;
      fill(input.dtype, buffer, ask.num_tokens, ask.position, 1);
      // The axes of an image's positions are all the same for text.
      for (int64_t axis = 1; axis < view.size() / ask.num_tokens; ++axis) {
        const std::vector<uint8_t> first(
            buffer.begin(),
            buffer.begin() + ask.num_tokens * static_cast<int64_t>(dtype_size(input.dtype)));
        buffer.insert(buffer.end(), first.begin(), first.end());
      }
      break;
    case Feed::kFlags: {
      const int64_t keys = input.keys > 0 ? input.keys : end;
      view.shape = {1, keys};
      fill(input.dtype, buffer, keys, 1, 0);
      const size_t used = static_cast<size_t>(std::min(end, keys)) * dtype_size(input.dtype);
      std::fill(buffer.begin() + static_cast<std::ptrdiff_t>(used), buffer.end(), uint8_t{0});
      break;
    }
    case Feed::kMask: {
      const int64_t keys = input.keys > 0 ? input.keys : end;
      view.shape = {1, 1, ask.num_tokens, keys};
      buffer.assign(static_cast<size_t>(view.size()), 0);
      for (int64_t token = 0; token < ask.num_tokens; ++token) {
        const int64_t seen = std::min(keys, ask.position + token + 1);
        std::memset(buffer.data() + token * keys, 1, static_cast<size_t>(seen));
      }
      break;
    }
  }
  view.data = buffer.data();
  return view;
}

}  // namespace emm
