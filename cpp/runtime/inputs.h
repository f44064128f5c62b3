// What a prompt is made of, in the order in which the model reads it. Arrays are views; `owner`
// keeps the memory behind a view alive for as long as the input exists.
#pragma once

#include <cstdint>
#include <memory>
#include <variant>
#include <vector>

#include "base/tensor_view.h"

namespace emm {

struct TokenInput {
  std::vector<int64_t> ids;
};
struct ImageInput {
  TensorView pixels;  // (channels, height, width) or (1, channels, height, width)
  std::shared_ptr<const void> owner;
};
struct AudioInput {
  TensorView features;  // (num_bins, num_frames) or (num_clips, num_bins, num_frames)
  std::shared_ptr<const void> owner;
};
struct EmbeddingInput {
  TensorView rows;  // (num_tokens, hidden_size)
  std::shared_ptr<const void> owner;
};

using Input = std::variant<TokenInput, ImageInput, AudioInput, EmbeddingInput>;

}  // namespace emm
