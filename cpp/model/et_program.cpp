#include "model/et_program.h"

#include <executorch/extension/threadpool/threadpool_guard.h>
#include <executorch/runtime/kernel/operator_registry.h>

#include <filesystem>
#include <optional>
#include <utility>

#include "base/error.h"
#include "model/et_log.h"
#include "model/et_result.h"
#include "model/et_tensor.h"
#include "model/thread_pool.h"
#include "ops/kernels.h"

namespace emm {
namespace {

using executorch::extension::Module;
using executorch::extension::threadpool::NoThreadPoolGuard;
using executorch::runtime::EValue;

Module::LoadMode to_module_mode(LoadMode mode) {
  switch (mode) {
    case LoadMode::kMmap:
      return Module::LoadMode::Mmap;
    case LoadMode::kMmapMlock:
      return Module::LoadMode::MmapUseMlockIgnoreErrors;
    case LoadMode::kFile:
      break;
  }
  return Module::LoadMode::File;
}

size_t checked_file_bytes(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) throw Error(ErrorCode::kLoad, path + ": no such file");
  if (!fs::is_regular_file(status)) {
    throw Error(ErrorCode::kLoad,
                path + ": expected a file, got " +
                    (fs::is_directory(status) ? "a directory" : "something that is not a file"));
  }
  const uintmax_t bytes = fs::file_size(path, error);
  if (error) throw Error(ErrorCode::kLoad, path + ": " + error.message());
  if (bytes == 0) throw Error(ErrorCode::kLoad, path + ": the file is empty");
  return static_cast<size_t>(bytes);
}

// Our kernels first, then the SDK's: a method's own list is searched before the global registry,
// and an operator that is in neither is then reported once.
std::vector<executorch::ET_RUNTIME_NAMESPACE::Kernel> kernel_list() {
  const auto& ours = ops::llm_kernels();
  std::vector<executorch::ET_RUNTIME_NAMESPACE::Kernel> kernels(ours.begin(), ours.end());
  const auto registered = executorch::ET_RUNTIME_NAMESPACE::get_registered_kernels();
  kernels.insert(kernels.end(), registered.begin(), registered.end());
  return kernels;
}

}  // namespace

EtProgram::EtProgram(const LoadOptions& options) {
  install_log_handler();
  file_bytes_ = checked_file_bytes(options.model_path);
  for (const std::string& path : options.data_paths) file_bytes_ += checked_file_bytes(path);

  LogCapture log;
  module_ = std::make_unique<Module>(options.model_path, options.data_paths,
                                     to_module_mode(options.load_mode));
  const auto error =
      module_->load(executorch::ET_RUNTIME_NAMESPACE::Program::Verification::InternalConsistency);
  if (error != executorch::runtime::Error::Ok) {
    throw_et_error(ErrorCode::kLoad, options.model_path + ": reading it as an ExecuTorch program",
                   error, log);
  }
}

void EtProgram::use_threads(int64_t num_threads) {
  if (num_threads > 1) claim_thread_pool(static_cast<size_t>(num_threads));
  num_threads_ = num_threads;
}

void EtProgram::load_method(const MethodSpec& spec) {
  LoadedMethod& loaded = methods_[spec.name];
  module_->unload_method(spec.name);  // before its arena goes
  loaded = {};
  loaded.spec = &spec;
  loaded.arena = std::make_unique<Arena>(spec.arena_bytes);

  // XNNPACK fixes its thread use when a method is loaded, not when it runs.
  std::optional<NoThreadPoolGuard> single_thread;
  if (num_threads_ == 1) single_thread.emplace();
  LogCapture log;
  large_pages_.begin_load();
  auto error =
      module_->load_method(spec.name, loaded.arena->allocator(), nullptr, nullptr, kernel_list());
  if (error != executorch::runtime::Error::Ok) {
    throw_et_error(ErrorCode::kLoad, spec.name + ": loading the method", error, log);
  }
  for (size_t i = 0; i < spec.outputs.size(); ++i) {
    const TensorSpec& output = spec.outputs[i];
    if (output.is_planned || output.dtype == DType::kOther) continue;
    auto& buffer = loaded.output_buffers.emplace_back(
        static_cast<size_t>(num_elements(output.shape)) * dtype_size(output.dtype));
    const auto tensor = to_tensor({buffer.data(), output.dtype, output.shape});
    error = module_->set_output(spec.name, EValue(*tensor), i);
    if (error != executorch::runtime::Error::Ok) {
      throw_et_error(ErrorCode::kLoad,
                     spec.name + ": giving output " + std::to_string(i) + " a buffer", error, log);
    }
  }
  large_pages_.end_load();
  loaded.arena->remember_initial_state();
}

}  // namespace emm
