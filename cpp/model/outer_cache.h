// Programs that have no key/value cache in the graph: kvcache::update_and_attend writes and reads
// one that the runner brings. What it must look like follows from the calls.
#pragma once

#include <string>

#include "model/contract.h"
#include "program/program_file.h"

namespace emm {

// Of all methods together, which share the cache; no layers where nothing calls the operator.
// Windows come from the constant method get_windows, one for each layer, 0 for none. Throws
// Error(kContract) for calls that no cache can serve.
OuterCache find_outer_cache(const ProgramInfo& program, const Signatures& signatures);

// Whether this method calls the operator.
bool uses_outer_cache(const ProgramMethod& method);

// Whether conversations with different outputs of the encoder, inputs 1 to `num_sources`, may share
// a call of this method: executorch_mm::cross_attend reads them, or tells how much is looked at,
// and nothing else does. Throws Error(kContract) where the method calls it in another way.
bool takes_sources_apart(const ProgramMethod& method, size_t num_sources);

// By numpy's name. Throws Error(kInput) for one that rows cannot have.
DType outer_cache_dtype(const std::string& name);

}  // namespace emm
