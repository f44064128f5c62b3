// A program whose linear layers are ours: ExecuTorch looks a delegate up by the name in the
// program, so the program's structure (not its weights) is copied, with our name where we take
// over.
#pragma once

#include <executorch/runtime/core/data_loader.h>

#include <cstddef>
#include <memory>

#include "et/linear_choice.h"
#include "program/program_file.h"

namespace emm {

// How many graphs of linear layers there are to take over.
size_t count_linear_delegates(const ProgramInfo& program, const LinearChoice& choice);

// How many graphs that compute number by number go with them.
size_t count_pointwise_delegates(const ProgramInfo& program, const LinearChoice& choice);

// Reads everything but the program's structure from `inner`. `program` is what check_program()
// found in the same bytes. Throws Error(kLoad) where they cannot be read.
std::unique_ptr<executorch::runtime::DataLoader> rename_linear_delegates(
    std::unique_ptr<executorch::runtime::DataLoader> inner, const ProgramInfo& program,
    const LinearChoice& choice, const char* backend);

}  // namespace emm
