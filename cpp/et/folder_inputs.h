// What goes into an input of a folder's part, besides the cache.
#pragma once

#include <cstdint>
#include <vector>

#include "base/tensor_view.h"
#include "model/folder_reader.h"

namespace emm {

// What is asked of a call.
struct FolderAsk {
  const int64_t* ids = nullptr;
  TensorView media;  // embeddings, pixels, features
  int64_t num_tokens = 0;
  int64_t position = 0;
};

// Made in `buffer`, where it is not what the caller has. No tensor for Feed::kNone and kCache.
TensorView make_folder_input(const PartInput& input, const FolderAsk& ask,
                             std::vector<uint8_t>& buffer);

}  // namespace emm
