#include "et/et_program.h"

#include <executorch/extension/data_loader/buffer_data_loader.h>
#include <executorch/extension/data_loader/file_data_loader.h>
#include <executorch/extension/data_loader/mmap_data_loader.h>
#include <executorch/extension/threadpool/threadpool_guard.h>
#include <executorch/runtime/kernel/operator_registry.h>
#include <executorch/runtime/platform/log.h>

#include <array>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>
#include <utility>

#include "base/error.h"
#include "et/backends.h"
#include "et/et_log.h"
#include "et/et_result.h"
#include "et/et_tensor.h"
#include "et/linear_backend.h"
#include "et/linear_choice.h"
#include "et/method_values.h"
#include "et/part_loader.h"
#include "et/patched_loader.h"
#include "et/thread_pool.h"
#include "et/weight_copies.h"
#include "model/cache_kind.h"
#include "ops/kernels.h"
#include "program/file_part.h"
#include "program/program_check.h"

namespace emm {
namespace {

using executorch::extension::FileDataLoader;
using executorch::extension::MmapDataLoader;
using executorch::extension::Module;
using executorch::extension::threadpool::NoThreadPoolGuard;
using executorch::runtime::BackendOption;
using executorch::runtime::DataLoader;
using executorch::runtime::EValue;
using executorch::runtime::LoadBackendOptionsMap;

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
  return find_part(path).size;
}

// A whole program starts at an address like those that malloc() gives: what has another one is
// copied.
constexpr size_t kModelAlignment = alignof(std::max_align_t);

ModelBytes aligned(const ModelBytes& bytes) {
  if (reinterpret_cast<uintptr_t>(bytes.data) % kModelAlignment == 0) return bytes;
  const std::shared_ptr<void> copy(std::malloc(bytes.size), std::free);
  if (copy == nullptr) {
    throw Error(ErrorCode::kLoad,
                "model: no memory for " + std::to_string(bytes.size) + " bytes in another place");
  }
  std::memcpy(copy.get(), bytes.data, bytes.size);
  return {copy.get(), bytes.size, copy};
}

template <typename Loader>
std::unique_ptr<DataLoader> keep(executorch::runtime::Result<Loader> loader,
                                 const std::string& path, const LogCapture& log) {
  if (!loader.ok()) throw_et_error(ErrorCode::kLoad, path + ": opening it", loader.error(), log);
  return std::make_unique<Loader>(std::move(*loader));
}

std::unique_ptr<DataLoader> open_data(const std::string& path, LoadMode mode) {
  const LogCapture log;
  FilePart part = find_part(path);
  if (!part.is_whole) return load_part(std::move(part), mode);
  if (mode == LoadMode::kFile) return keep(FileDataLoader::from(path.c_str()), path, log);
  const auto locking = mode == LoadMode::kMmap ? MmapDataLoader::MlockConfig::NoMlock
                                               : MmapDataLoader::MlockConfig::UseMlockIgnoreErrors;
  return keep(MmapDataLoader::from(path.c_str(), locking), path, log);
}

// `choice` says which linear layers are ours.
std::unique_ptr<Module> make_module(const LoadOptions& options, const ModelBytes& bytes,
                                    const ProgramInfo& program, const LinearChoice& choice) {
  const auto is_whole = [](const std::string& path) { return find_part(path).is_whole; };
  if (bytes.data == nullptr && choice.kernels.empty() && is_whole(options.model_path) &&
      std::all_of(options.data_paths.begin(), options.data_paths.end(), is_whole)) {
    return std::make_unique<Module>(options.model_path, options.data_paths,
                                    to_module_mode(options.load_mode));
  }
  // ExecuTorch's constructors take any number of .ptd files beside a path, but one beside a loader.
  if (options.data_paths.size() > 1) {
    throw Error(
        ErrorCode::kInput,
        "data_path: expected at most one .ptd file for a model in memory or in a bundle, got " +
            std::to_string(options.data_paths.size()));
  }
  auto data =
      options.data_paths.empty() ? nullptr : open_data(options.data_paths[0], options.load_mode);
  std::unique_ptr<DataLoader> model;
  if (bytes.data == nullptr) {
    model = open_data(options.model_path, options.load_mode);
  } else {
    model = std::make_unique<executorch::extension::BufferDataLoader>(bytes.data, bytes.size);
  }
  if (!choice.kernels.empty())
    model = rename_linear_delegates(std::move(model), program, choice, kLinearBackend);
  return std::make_unique<Module>(std::move(model), nullptr, nullptr, nullptr, std::move(data));
}

// ExecuTorch ignores a key it does not know; these are XNNPACKBackend.h's, which the SDK lacks.
std::vector<BackendOption> to_backend_options(const XnnpackOptions& xnnpack) {
  std::vector<BackendOption> options = {
      {"workspace_sharing_mode", static_cast<int>(xnnpack.workspace_sharing)},
      {"weight_cache_enabled", xnnpack.weight_cache}};
  return options;
}

// The SDK's kernels, then ours: of several with one name the last is taken, and an operator that is
// in neither is reported once, for a method's own list is searched before the global registry.
std::vector<executorch::ET_RUNTIME_NAMESPACE::Kernel> kernel_list() {
  const auto registered = executorch::ET_RUNTIME_NAMESPACE::get_registered_kernels();
  std::vector<executorch::ET_RUNTIME_NAMESPACE::Kernel> kernels(registered.begin(),
                                                                registered.end());
  const auto& ours = ops::llm_kernels();
  kernels.insert(kernels.end(), ours.begin(), ours.end());
  return kernels;
}

// What other methods have left in shared memory comes back once the new one has written its start.
class AsideWhileLoading {
 public:
  explicit AsideWhileLoading(const SharedBuffers& buffers) : buffers_(buffers) {
    for (const auto& [index, memory] : buffers_) memory->set_aside();
  }
  ~AsideWhileLoading() {
    for (const auto& [index, memory] : buffers_) memory->bring_back();
  }
  AsideWhileLoading(const AsideWhileLoading&) = delete;
  AsideWhileLoading& operator=(const AsideWhileLoading&) = delete;

 private:
  const SharedBuffers& buffers_;
};

}  // namespace

EtProgram::EtProgram(const LoadOptions& options) : openvino_library_(options.openvino_library) {
  install_log_handler();
  const bool is_file = options.model_bytes.data == nullptr;
  file_bytes_ = is_file ? checked_file_bytes(options.model_path) : options.model_bytes.size;
  std::vector<DataEntry> outside;
  for (const std::string& path : options.data_paths) {
    file_bytes_ += checked_file_bytes(path);
    for (DataEntry& entry : check_data_file(path)) outside.push_back(std::move(entry));
  }
  if (!is_file) model_bytes_ = aligned(options.model_bytes);
  const std::string what =
      is_file ? options.model_path
              : "model (" + std::to_string(model_bytes_.size) + " bytes in memory)";
  structure_ = is_file ? check_program_file(what, outside)
                       : check_program(static_cast<const uint8_t*>(model_bytes_.data),
                                       model_bytes_.size, what, outside);
  for (const auto& [id, bytes] : find_sharing(structure_).memories)
    shared_.emplace(id - 1, std::make_shared<PlannedMemory>(bytes));
  LinearChoice choice = choose_linear(options.linear);
  copies_weights_ = choose_copies(options.linear_weights);
  std::string& kernels = choice.kernels;
  // Beside several .ptd files ExecuTorch takes no loader of ours.
  const size_t count =
      options.data_paths.size() > 1 ? 0 : count_linear_delegates(structure_, choice);
  if (count == 0) kernels.clear();
  copies_weights_ = copies_weights_ && !kernels.empty();
  if (!kernels.empty()) {
    register_linear_backend();
    ET_LOG(Info, "%zu graphs are linear layers of ours (%s)", count, kernels.c_str());
    ET_LOG(Info, "%zu graphs compute number by number with loops of ours",
           count_pointwise_delegates(structure_, choice));
  }
  module_ = make_module(options, model_bytes_, structure_, choice);

  LogCapture log;
  std::vector<BackendOption> xnnpack = to_backend_options(options.xnnpack);
  LoadBackendOptionsMap backends;
  auto error = backends.set_options("XnnpackBackend", {xnnpack.data(), xnnpack.size()});
  std::vector<BackendOption> ours;
  if (!kernels.empty() && error == executorch::runtime::Error::Ok) {
    std::array<char, executorch::runtime::kMaxOptionValueLength> name{};
    kernels.copy(name.data(), name.size() - 1);
    BackendOption& option = ours.emplace_back();
    std::strncpy(option.key, kLinearKernelsOption, sizeof option.key - 1);
    option.value = name;
    BackendOption& copying = ours.emplace_back();
    std::strncpy(copying.key, kLinearCopiesOption, sizeof copying.key - 1);
    copying.value = copies_weights_;
    error = backends.set_options(kLinearBackend, {ours.data(), ours.size()});
  }
  if (error == executorch::runtime::Error::Ok) {
    error = module_->load(  // copies the options
        backends, executorch::ET_RUNTIME_NAMESPACE::Program::Verification::InternalConsistency);
  }
  if (error != executorch::runtime::Error::Ok) {
    throw_et_error(ErrorCode::kLoad, what + ": reading it as an ExecuTorch program", error, log);
  }
  if (!options.profile_path.empty()) profile_.emplace(options.profile_path);
}

void EtProgram::use_threads(int64_t num_threads) {
  if (num_threads > 1) claim_thread_pool(static_cast<size_t>(num_threads));
  num_threads_ = num_threads;
}

void EtProgram::load_method(const MethodSpec& spec) {
  require_backends(spec, openvino_library_);
  LoadedMethod& loaded = methods_[spec.name];
  module_->unload_method(spec.name);  // before its arena goes
  loaded = {};
  loaded.spec = &spec;
  loaded.arena = std::make_unique<Arena>(spec.arena_bytes, shared_);
  const AsideWhileLoading aside(shared_);

  // XNNPACK fixes its thread use when a method is loaded, not when it runs.
  std::optional<NoThreadPoolGuard> single_thread;
  if (num_threads_ == 1) single_thread.emplace();
  LogCapture log;
  large_pages_.begin_load();
  auto error =
      module_->load_method(spec.name, loaded.arena->allocator(),
                           profile_ ? profile_->tracer() : nullptr, nullptr, kernel_list());
  if (error != executorch::runtime::Error::Ok) {
    const bool is_data_missing = error == executorch::runtime::Error::NotFound ||
                                 log.text().find("external_data_map") != std::string::npos;
    throw_et_error(ErrorCode::kLoad,
                   spec.name + ": loading the method" +
                       (is_data_missing ? " (is a .ptd file missing in data_path?)" : ""),
                   error, log);
  }
  large_pages_
      .end_load();  // before the outputs get their buffers, of which calls write a part only
  if (copies_weights_) {
    ET_LOG(Info, "this process has copies of %zu bytes of weights",
           WeightCopies::instance().bytes_in_use());
  }
  for (size_t i = 0; i < spec.outputs.size(); ++i) {
    const TensorSpec& output = spec.outputs[i];
    if (output.is_planned || output.dtype == DType::kOther) continue;
    // Not initialised: of a large buffer only the pages that a call writes take room.
    auto& buffer = loaded.output_buffers.emplace_back(
        new uint8_t[static_cast<size_t>(num_elements(output.shape)) * dtype_size(output.dtype)]);
    set_output(spec.name, i, {buffer.get(), output.dtype, output.shape});
  }
  loaded.arena->remember_initial_state();
}

void EtProgram::set_input(const std::string& method, size_t index, const TensorView& input,
                          ErrorCode input_error) {
  const MethodSpec& spec = *methods_.at(method).spec;
  LogCapture log;
  const bool is_tensor = input.dtype != DType::kOther;
  const auto tensor = is_tensor ? to_tensor(input) : nullptr;
  const auto error = module_->set_input(method, is_tensor ? EValue(*tensor) : EValue(), index);
  if (error != executorch::runtime::Error::Ok) {
    throw_et_error(
        input_error,
        method + ": input " + std::to_string(index) + ": expected " +
            TensorView{nullptr, spec.inputs[index].dtype, spec.inputs[index].shape}.describe() +
            " (or less where dynamic), got " + input.describe() + "; setting it",
        error, log);
  }
  if (is_tensor && spec.inputs[index].is_planned)
    copied_input_bytes_ += static_cast<int64_t>(input.size_bytes());
}

void EtProgram::set_output(const std::string& method, size_t index, const TensorView& memory) {
  LogCapture log;
  const auto tensor = to_tensor(memory);
  const auto error = module_->set_output(method, EValue(*tensor), index);
  if (error != executorch::runtime::Error::Ok) {
    throw_et_error(ErrorCode::kLoad,
                   method + ": giving output " + std::to_string(index) + " a buffer", error, log);
  }
}

std::vector<TensorView> EtProgram::execute(const std::string& method) {
  std::optional<NoThreadPoolGuard> single_thread;
  if (num_threads_ == 1) single_thread.emplace();
  LogCapture log;
  const auto outputs = module_->execute(method);
  if (!outputs.ok())
    throw_et_error(ErrorCode::kExecution, method + ": execution", outputs.error(), log);
  if (outputs->empty() || !(*outputs)[0].isTensor()) {
    throw Error(ErrorCode::kExecution, method + ": expected a tensor as output 0");
  }
  std::vector<TensorView> views;
  for (const EValue& output : *outputs)
    views.push_back(output.isTensor() ? to_view(output.toTensor()) : TensorView{});
  return views;
}

std::vector<TensorView> EtProgram::run(const std::string& method,
                                       const std::vector<TensorView>& inputs,
                                       ErrorCode input_error) {
  for (size_t i = 0; i < inputs.size(); ++i) set_input(method, i, inputs[i], input_error);
  return execute(method);
}

std::vector<TensorView> EtProgram::run(const std::string& method,
                                       const std::vector<TensorView>& inputs, ErrorCode input_error,
                                       int64_t& copied_bytes) {
  const int64_t before = copied_input_bytes_;
  std::vector<TensorView> outputs = run(method, inputs, input_error);
  copied_bytes += copied_input_bytes_ - before;
  return outputs;
}

std::vector<executorch::aten::TensorImpl*> EtProgram::tensors(const std::string& method) {
  return method_tensors(*module_, method);
}

void EtProgram::restart_profile() {
  if (profile_) profile_->restart();
}

void EtProgram::write_profile() {
  if (profile_) profile_->write();
}

}  // namespace emm
