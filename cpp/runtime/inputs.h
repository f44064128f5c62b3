// What a prompt is made of, in the order in which the model reads it. Arrays are views; `owner`
// keeps the memory behind a view alive for as long as the input exists. `content` is a unit that
// stands for what the arrays hold (content_units.h), empty where nobody knows one.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "base/tensor_view.h"
#include "model/contract.h"

namespace emm {

struct TokenInput {
  std::vector<int64_t> ids;
};
// `placeholder_id`: what stands for it among tokens, -1 where the program is to say.
struct ImageInput {
  // (channels, height, width) or (1, channels, height, width); or patches (num_patches, features)
  TensorView pixels;
  std::shared_ptr<const void> owner;
  TensorView positions = {};  // of patches: (num_patches, 2)
  std::shared_ptr<const void> positions_owner = nullptr;
  int64_t placeholder_id = -1;
  std::string content = {};  // NOLINT(readability-redundant-member-init): else -Wextra complains
};
struct AudioInput {
  // (num_bins, num_frames) or (num_clips, num_bins, num_frames), as the encoder wants them; or
  // samples (num_samples)
  TensorView features;
  std::shared_ptr<const void> owner;
  TensorView mask = {};  // (num_frames): false for padding
  std::shared_ptr<const void> mask_owner = nullptr;
  int64_t placeholder_id = -1;
  std::string content = {};  // NOLINT(readability-redundant-member-init): else -Wextra complains
};
struct EmbeddingInput {
  TensorView rows;  // (num_tokens, hidden_size)
  std::shared_ptr<const void> owner;
  std::string content = {};  // NOLINT(readability-redundant-member-init): else -Wextra complains
};

// What the encoder of a text-to-text model reads.
struct SourceInput {
  std::vector<int64_t> ids;
};

using Input = std::variant<TokenInput, ImageInput, AudioInput, EmbeddingInput, SourceInput>;

// The id that a joint decoder is given at the positions of an input that is no tokens.
int64_t placeholder_id(const Input& input, const Contract& contract);

// Of an input that is no tokens.
const std::string& content_of(const Input& input);

}  // namespace emm
