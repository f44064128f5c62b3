#include "et/et_speech.h"

#include <utility>

#include "et/et_executor.h"
#include "et/et_transducer.h"
#include "model/signatures.h"

namespace emm {

SpeechExecutor load_speech(const LoadOptions& options) {
  auto program = std::make_unique<EtProgram>(options);
  if (model_kind(read_signatures(program->structure())) == ModelKind::kTransducer)
    return std::make_unique<EtTransducer>(std::move(program), options.num_threads);
  return std::make_unique<EtExecutor>(std::move(program), options);
}

}  // namespace emm
