#include "model/et_executor.h"

#include <executorch/extension/tensor/tensor.h>
#include <executorch/extension/threadpool/threadpool_guard.h>
#include <executorch/runtime/kernel/operator_registry.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <utility>

#include "base/clock.h"
#include "base/error.h"
#include "model/contract_reader.h"
#include "model/convert.h"
#include "model/et_log.h"
#include "model/et_result.h"
#include "model/et_types.h"
#include "model/large_pages.h"
#include "model/thread_choice.h"
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

// An EValue made of the result refers to it without owning it. ExecuTorch takes a mutable pointer
// but only reads its inputs.
executorch::extension::TensorPtr to_tensor(const TensorView& view) {
  std::vector<executorch::aten::SizesType> sizes;
  for (const int64_t size : view.shape)
    sizes.push_back(static_cast<executorch::aten::SizesType>(size));
  return executorch::extension::from_blob(const_cast<void*>(view.data), std::move(sizes),
                                          to_scalar_type(view.dtype));
}

TensorView to_view(const executorch::aten::Tensor& tensor) {
  TensorView view{tensor.const_data_ptr(), from_scalar_type(tensor.scalar_type()), {}};
  for (const auto size : tensor.sizes()) view.shape.push_back(size);
  return view;
}

// (…, rows, columns) -> (rows, columns), the leading dimensions stacked.
TensorView as_rows(TensorView view) {
  const int64_t columns = view.shape.back();
  view.shape = {columns == 0 ? 0 : view.size() / columns, columns};
  return view;
}

struct EtSnapshot final : StateSnapshot {
  std::vector<std::vector<uint8_t>> buffers;
  size_t size_bytes() const override {
    size_t total = 0;
    for (const auto& buffer : buffers) total += buffer.size();
    return total;
  }
};

}  // namespace

EtExecutor::EtExecutor(const LoadOptions& options) {
  install_log_handler();
  size_t file_bytes = checked_file_bytes(options.model_path);
  for (const std::string& path : options.data_paths) file_bytes += checked_file_bytes(path);

  LogCapture log;
  module_ = std::make_unique<Module>(options.model_path, options.data_paths,
                                     to_module_mode(options.load_mode));
  const auto error =
      module_->load(executorch::ET_RUNTIME_NAMESPACE::Program::Verification::InternalConsistency);
  if (error != executorch::runtime::Error::Ok) {
    throw_et_error(ErrorCode::kLoad, options.model_path + ": reading it as an ExecuTorch program",
                   error, log);
  }
  contract_ = read_contract(*module_);
  load_decoder(options.num_threads, file_bytes);
  for (const char* name : {"vision_encoder", "audio_encoder"}) {
    if (const MethodSpec* encoder = contract_.find(name)) load_method(*encoder);
  }
}

void EtExecutor::load_decoder(int64_t num_threads, size_t file_bytes) {
  if (num_threads > 0) return load_decoder_on(num_threads);
  // A pool that a model has fixed stays as it is, even where it is larger than our share.
  const size_t pool_size = std::min(thread_pool_size(), usable_cores());
  const ThreadChoice choice = choose_threads(file_bytes, pool_size);
  if (choice != ThreadChoice::kPool) load_decoder_on(1);
  if (choice == ThreadChoice::kOne) return;
  const int64_t one_thread_ns = choice == ThreadChoice::kMeasure ? time_turn() : 0;
  load_decoder_on(is_thread_pool_claimed() ? thread_pool_size() : pool_size);
  // What the pool gains must be worth the other cores.
  if (choice == ThreadChoice::kMeasure &&
      0.95 * static_cast<double>(one_thread_ns) <= static_cast<double>(time_turn()))
    load_decoder_on(1);
}

void EtExecutor::load_decoder_on(int64_t num_threads) {
  if (num_threads > 1) claim_thread_pool(static_cast<size_t>(num_threads));
  num_threads_ = num_threads;
  if (contract_.kind == ModelKind::kMultimodal)
    load_method(contract_.methods.at("token_embedding"));
  load_method(contract_.decoder());
}

int64_t EtExecutor::time_turn() {
  constexpr int64_t kPromptTokens = 64;
  constexpr int64_t kAnswerTokens = 64;
  constexpr int64_t kTimedPrompts = 3;
  constexpr int64_t kTimedSteps = 16;
  const std::vector<int64_t> ids(kPromptTokens, 0);
  const int64_t num_tokens =
      std::min({kPromptTokens, contract_.max_chunk, std::max<int64_t>(1, contract_.capacity / 2)});
  const auto time_call = [&](int64_t count, int64_t position) {
    int64_t elapsed = 0;
    {
      const ScopedTimer timer(elapsed);
      decode_tokens(ids.data(), count, position);
    }
    return elapsed;
  };
  time_call(num_tokens, 0);  // the first call also prepares memory
  int64_t turn_ns = INT64_MAX;
  for (int64_t i = 0; i < kTimedPrompts; ++i) turn_ns = std::min(turn_ns, time_call(num_tokens, 0));
  if (contract_.position_style != PositionStyle::kNone) {
    int64_t step_ns = INT64_MAX;
    for (int64_t i = 0; i < kTimedSteps && num_tokens + i < contract_.capacity; ++i)
      step_ns = std::min(step_ns, time_call(1, num_tokens + i));
    turn_ns += kAnswerTokens * step_ns;
  }
  reset_state();
  return turn_ns;
}

void EtExecutor::load_method(const MethodSpec& spec) {
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

TensorView EtExecutor::run(const std::string& method, const std::vector<TensorView>& inputs,
                           ErrorCode input_error) {
  const MethodSpec& spec = *methods_.at(method).spec;
  std::optional<NoThreadPoolGuard> single_thread;
  if (num_threads_ == 1) single_thread.emplace();
  LogCapture log;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const auto tensor = to_tensor(inputs[i]);
    const auto error = module_->set_input(method, EValue(*tensor), i);
    if (error != executorch::runtime::Error::Ok) {
      throw_et_error(
          input_error,
          method + ": input " + std::to_string(i) + ": expected " +
              TensorView{nullptr, spec.inputs[i].dtype, spec.inputs[i].shape}.describe() +
              " (or less where dynamic), got " + inputs[i].describe() + "; setting it",
          error, log);
    }
    if (spec.inputs[i].is_planned)
      copied_input_bytes_ += static_cast<int64_t>(inputs[i].size_bytes());
  }
  const auto outputs = module_->execute(method);
  if (!outputs.ok())
    throw_et_error(ErrorCode::kExecution, method + ": execution", outputs.error(), log);
  if (outputs->empty() || !(*outputs)[0].isTensor()) {
    throw Error(ErrorCode::kExecution, method + ": expected a tensor as output 0");
  }
  return to_view((*outputs)[0].toTensor());
}

TensorView EtExecutor::run_decoder(const TensorView& first, int64_t num_tokens, int64_t position) {
  if (num_tokens == 1) large_pages_.advise();
  std::vector<TensorView> inputs = {first};
  if (contract_.position_style != PositionStyle::kNone) {
    const bool is_range = contract_.position_style == PositionStyle::kRange;
    positions_.resize(is_range ? static_cast<size_t>(num_tokens) : 1);
    for (size_t i = 0; i < positions_.size(); ++i)
      positions_[i] = position + static_cast<int64_t>(i);
    inputs.push_back({positions_.data(), DType::kInt64, {static_cast<int64_t>(positions_.size())}});
  }
  const TensorView logits = as_rows(run(contract_.decoder().name, inputs, ErrorCode::kExecution));
  if (logits.shape[0] < 1)
    throw Error(ErrorCode::kExecution, contract_.decoder().name + ": no logits came out");
  TensorView last = row_range(logits, logits.shape[0] - 1, 1);
  last.shape = {logits.shape[1]};
  return last;
}

TensorView EtExecutor::decode_tokens(const int64_t* ids, int64_t num_tokens, int64_t position) {
  const TensorView tokens{ids, DType::kInt64, {1, num_tokens}};
  if (contract_.kind == ModelKind::kText) return run_decoder(tokens, num_tokens, position);
  return run_decoder(run("token_embedding", {tokens}, ErrorCode::kExecution), num_tokens, position);
}

TensorView EtExecutor::decode_embeddings(const TensorView& embeddings, int64_t position) {
  TensorView batched = embeddings;
  batched.shape.insert(batched.shape.begin(), 1);
  return run_decoder(batched, embeddings.shape[0], position);
}

TensorView EtExecutor::encode(const std::string& method, const char* what,
                              const TensorView& input) {
  const auto found = methods_.find(method);
  if (found == methods_.end()) {
    throw Error(ErrorCode::kInput,
                std::string(what) + ": the model has no " + method + ", so it takes no " + what);
  }
  const TensorSpec& wanted = found->second.spec->inputs[0];
  const TensorView given = [&] {
    if (!all_finite(input))
      throw Error(ErrorCode::kInput,
                  std::string(what) + ": expected finite values, got NaN or infinity");
    TensorView view = convert(input, wanted.dtype, converted_, what);
    if (view.data != input.data) copied_input_bytes_ += static_cast<int64_t>(input.size_bytes());
    // The batch dimension may be left out or given; the program decides whether there is one.
    if (view.shape.size() + 1 == wanted.shape.size()) view.shape.insert(view.shape.begin(), 1);
    if (view.shape.size() == wanted.shape.size() + 1 && view.shape[0] == 1)
      view.shape.erase(view.shape.begin());
    return view;
  }();
  bool fits = given.shape.size() == wanted.shape.size() && given.size() > 0;
  for (size_t i = 0; fits && i < given.shape.size(); ++i) fits = given.shape[i] <= wanted.shape[i];
  if (!fits) {
    throw Error(ErrorCode::kInput, std::string(what) + ": " + method + " expects " +
                                       TensorView{nullptr, wanted.dtype, wanted.shape}.describe() +
                                       ", got " + given.describe());
  }
  return as_rows(run(method, {given}, ErrorCode::kInput));
}

TensorView EtExecutor::encode_image(const TensorView& image) {
  return encode("vision_encoder", "image", image);
}

TensorView EtExecutor::encode_audio(const TensorView& audio) {
  return encode("audio_encoder", "audio", audio);
}

void EtExecutor::reset_state() {
  for (auto& [name, method] : methods_) method.arena->reset();
}

std::unique_ptr<StateSnapshot> EtExecutor::save_state() const {
  auto snapshot = std::make_unique<EtSnapshot>();
  snapshot->buffers = methods_.at(contract_.decoder().name).arena->copy();
  return snapshot;
}

void EtExecutor::restore_state(const StateSnapshot& snapshot) {
  const auto* ours = dynamic_cast<const EtSnapshot*>(&snapshot);
  if (ours == nullptr)
    throw Error(ErrorCode::kInput, "snapshot: it was not made by this kind of executor");
  methods_.at(contract_.decoder().name).arena->assign(ours->buffers);
}

}  // namespace emm
