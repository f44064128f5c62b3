#include "et/et_speech.h"

#include <utility>

#include "base/error.h"
#include "et/et_executor.h"
#include "et/et_transducer.h"
#include "model/signatures.h"

namespace emm {

SpeechExecutor load_speech(const LoadOptions& options) {
  auto program = std::make_unique<EtProgram>(options);
  if (model_kind(read_signatures(program->structure())) == ModelKind::kTransducer) {
    if (!options.method.empty() || options.max_context_len > 0) {
      throw Error(ErrorCode::kInput,
                  "method, max_context_len: a transducer has neither decoders to choose from nor a "
                  "context");
    }
    return std::make_unique<EtTransducer>(std::move(program), options.num_threads);
  }
  return std::make_unique<EtExecutor>(std::move(program), options);
}

}  // namespace emm
