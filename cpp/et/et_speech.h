// Opens a speech model of either kind, which only its methods tell.
#pragma once

#include <memory>
#include <variant>

#include "model/executor.h"
#include "model/load_options.h"
#include "model/transducer.h"

namespace emm {

using SpeechExecutor = std::variant<std::unique_ptr<Executor>, std::unique_ptr<TransducerExecutor>>;

// A file that is no speech model may come back as an Executor. Throws Error(kLoad) or
// Error(kContract).
SpeechExecutor load_speech(const LoadOptions& options);

}  // namespace emm
