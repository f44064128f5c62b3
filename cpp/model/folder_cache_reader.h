// The cache of an export folder: which tensors the decoder takes from call to call, and where the
// parts give them back. What does not fit is an Error(kContract).
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "model/folder_part.h"
#include "model/folder_reader.h"

namespace emm {

// The tensors among the inputs of decode, which is `call`: each input learns which one it takes.
std::vector<CacheTensor> read_cache(const NamedParts& parts, int64_t max_cache_len,
                                    FolderCall& call);

// Where each of them comes out of a part.
std::vector<std::optional<size_t>> cache_outputs(const NamedPart& part,
                                                 const std::vector<CacheTensor>& cache);

}  // namespace emm
