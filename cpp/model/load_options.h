// How a model is loaded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "model/export_folder.h"

namespace emm {

enum class LoadMode { kMmap, kMmapMlock, kFile };

// A whole .pte that is in memory already.
struct ModelBytes {
  const void* data = nullptr;
  size_t size = 0;
  std::shared_ptr<const void> owner;  // keeps the memory alive
};

// Which delegates share the memory for their intermediate results, and thereby take turns.
enum class WorkspaceSharing { kDisabled = 0, kPerModel = 1, kGlobal = 2 };  // as XNNPACK counts

struct XnnpackOptions {
  WorkspaceSharing workspace_sharing = WorkspaceSharing::kGlobal;
  bool weight_cache = false;
};

struct LoadOptions {
  std::string model_path;  // empty: model_bytes
  ModelBytes model_bytes;
  ExportFolder folder;                  // where it has parts, they are the model, and no path
  std::vector<std::string> data_paths;  // .ptd files with weights kept outside the program
  LoadMode load_mode = LoadMode::kMmap;
  int64_t num_threads = 0;      // 0: chosen from the model's size
  int64_t max_context_len = 0;  // positions; 0: as the program says
  XnnpackOptions xnnpack;
  std::string method;  // the decoder; empty: the usual one
  // Of the rows of a cache that the program leaves to us: "float32", "float16", "bfloat16", "int8";
  // empty: as the program's keys.
  std::string kv_cache_dtype;
  // Who runs linear layers: "auto", "xnnpack", "own", or an instruction set of our kernels.
  std::string linear = "auto";
  // Where our kernels read weights: "in_place", "copied" to large pages, or "auto".
  std::string linear_weights = "auto";
  std::string openvino_library;  // libopenvino_c.so; empty: the loader looks for it
  std::string profile_path;      // empty: no profile
  // The decoder's state is copied to and from each conversation even where it need not be.
  bool copies_state = false;
};

}  // namespace emm
