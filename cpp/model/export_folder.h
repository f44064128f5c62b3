// A model in several programs, as transformers' exporter writes it into a folder: what export.json
// says of them, read and checked above.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/tensor_view.h"

namespace emm {

struct FolderPart {
  std::string name;                  // such as "decode"
  std::string path;                  // of the .pte, whose only method is `forward`
  std::vector<std::string> inputs;   // names in their order: "input_ids", "cache.layers.0.keys"
  std::vector<std::string> outputs;  // of the last outputs; those changed in place come before
  std::vector<Shape> shapes;         // of the inputs when it was traced; empty where not recorded
};

struct ExportFolder {
  std::vector<FolderPart> parts;
  int64_t max_cache_len = 0;  // positions; 0 where the folder does not say
  std::vector<int64_t> eos_ids;
  std::string image_features = "last_hidden_state";  // the image encoder's output that goes on
  bool skips_first_feature = false;                  // whether its first row does not

  const FolderPart* find(const std::string& name) const {
    for (const FolderPart& part : parts) {
      if (part.name == name) return &part;
    }
    return nullptr;
  }
};

}  // namespace emm
