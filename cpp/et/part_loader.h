// A part of a file as ExecuTorch's data: its own loaders know whole files only.
#pragma once

#include <executorch/runtime/core/data_loader.h>

#include <memory>

#include "model/load_options.h"
#include "program/file_part.h"

namespace emm {

// Throws Error(kLoad) where the file cannot be opened.
std::unique_ptr<executorch::runtime::DataLoader> load_part(FilePart part, LoadMode mode);

}  // namespace emm
