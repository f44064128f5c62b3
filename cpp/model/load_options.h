// How a model is loaded.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace emm {

enum class LoadMode { kMmap, kMmapMlock, kFile };

struct LoadOptions {
  std::string model_path;
  std::vector<std::string> data_paths;  // .ptd files with weights kept outside the program
  LoadMode load_mode = LoadMode::kMmap;
  int64_t num_threads = 0;  // 0: chosen from the model's size
};

}  // namespace emm
