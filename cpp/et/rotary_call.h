// Rotary embeddings with loops of ours, on tensors that short_chain.h has put in the place of
// their halves.
#pragma once

#include <memory>
#include <vector>

#include "et/taken_graph.h"
#include "linear/pointwise.h"
#include "program/rotary_graph.h"

namespace emm {

std::unique_ptr<TakenGraph> make_rotary_call(const std::vector<RotaryPart>& parts,
                                             const linear::PointwiseLoops& loops);

}  // namespace emm
