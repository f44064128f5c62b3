#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "bindings/bindings.h"
#include "bindings/fork.h"
#include "et/et_speech.h"
#include "model/contract_reader.h"
#include "model/signatures.h"
#include "program/program_check.h"
#include "remote/remote_executor.h"
#include "remote/serve.h"
#include "runtime/session.h"

namespace emm::bindings {
namespace {

std::vector<Contract> contracts_of(const LoadOptions& options) {
  std::vector<DataEntry> outside;
  for (const std::string& path : options.data_paths) {
    for (DataEntry& entry : check_data_file(path)) outside.push_back(std::move(entry));
  }
  const ProgramInfo program = check_program_file(options.model_path, outside);
  if (model_kind(read_signatures(program)) == ModelKind::kTransducer)
    throw Error(ErrorCode::kInput, "isolate: transducers do not run in a process of their own");
  std::vector<Contract> contracts =
      read_contracts(program, {options.method, options.max_context_len, options.kv_cache_dtype});
  for (const Contract& contract : contracts) {
    if (contract.outer_cache.is_used())
      throw Error(ErrorCode::kInput,
                  "isolate: programs whose cache the runner keeps do not run in a process of their "
                  "own");
  }
  return contracts;
}

std::shared_ptr<Session> load_isolated(const LoadOptions& options, int process, int socket,
                                       int memory) {
  auto child = std::make_unique<remote::Process>(process, socket);
  auto shared = std::make_unique<remote::SharedMemory>(memory);
  auto model = std::make_shared<remote::RemoteModel>(contracts_of(options), std::move(child),
                                                     std::move(shared));
  return kept_in_children(
      std::make_unique<Session>(std::make_unique<remote::RemoteExecutor>(std::move(model))));
}

void serve_isolated(const LoadOptions& options, int socket, int memory) {
  try {
    SpeechExecutor loaded = load_speech(options);
    auto* executor = std::get_if<std::unique_ptr<Executor>>(&loaded);
    if (executor == nullptr)
      throw Error(ErrorCode::kInput, "isolate: transducers do not run in a process of their own");
    remote::serve(std::move(*executor), socket, memory);
  } catch (const Error& error) {
    const bool is_loading = error.code() == ErrorCode::kExecution;
    remote::refuse(socket, is_loading ? Error(ErrorCode::kLoad, error.what()) : error);
  }
}

}  // namespace

void bind_isolation(nb::module_& module) {
  module.def("load_isolated", load_isolated, "options"_a, "process"_a, "socket"_a, "memory"_a,
             WithoutGil(),
             "A session whose model runs in a child process that calls serve_isolated() with the "
             "same options.\nThe process, the socket and the memory file belong to the call, and "
             "end where it raises.");
  module.def("serve_isolated", serve_isolated, "options"_a, "socket"_a, "memory"_a, WithoutGil(),
             "Loads a model and runs it for the process at the other end of the socket until it "
             "is closed.");
}

}  // namespace emm::bindings
