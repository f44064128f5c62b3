// Graphs that compute number by number, run by our loops.
#pragma once

#include <memory>

#include "et/taken_graph.h"
#include "linear/pointwise.h"
#include "program/pointwise_graph.h"

namespace emm {

std::unique_ptr<TakenGraph> make_pointwise_call(const PointwiseGraph& graph,
                                                const linear::PointwiseLoops& loops);

}  // namespace emm
