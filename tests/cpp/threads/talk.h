// A conversation that does things at random beside others over the same model.
#pragma once

#include "at_once.h"

namespace emm::threads {

// Threads hold conversations over `model` and take over what others have read; each answers what a
// model that is loaded with `options` for it alone answers.
void expect_as_alone(Session& model, const LoadOptions& options, int num_rounds = 20);

}  // namespace emm::threads
