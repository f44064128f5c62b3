// One output row at a time, in plain scalar code: the answer for rows whose fast result is not
// finite.
#pragma once

#include "ops/attention.h"

namespace emm::ops {

// Computes the output of one query token and head exactly as attention() documents, reading
// excluded keys and values never. Also serves as the readable statement of what the vector kernels
// compute.
void attention_row(const AttentionSpan& span, int64_t b, int64_t token, int64_t head);

}  // namespace emm::ops
