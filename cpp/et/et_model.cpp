#include "et/et_model.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

#include "et/outer_cache_memory.h"
#include "model/contract_reader.h"
#include "program/data_file.h"

namespace emm {
namespace {

constexpr int64_t kUnchanged = std::numeric_limits<int64_t>::max();

std::vector<Contract> read(EtProgram& program, const LoadOptions& options) {
  std::vector<Contract> contracts = read_contracts(
      program.take_structure(), {options.method, options.max_context_len, options.kv_cache_dtype});
  for (Contract& contract : contracts) contract.is_state_copied |= options.copies_state;
  return contracts;
}

std::shared_ptr<EtModel::Decoding> decoding_with(std::unique_ptr<EtProgram> program) {
  auto decoding = std::make_shared<EtModel::Decoding>();
  decoding->program = std::move(program);
  return decoding;
}

// A model in memory is the program's alone.
LoadOptions without_bytes(LoadOptions options) {
  options.model_bytes = {};
  return options;
}

bool are_same(const std::vector<TensorSpec>& one, const std::vector<TensorSpec>& other) {
  return std::equal(one.begin(), one.end(), other.begin(), other.end(),
                    [](const TensorSpec& left, const TensorSpec& right) {
                      return left.dtype == right.dtype && left.shape == right.shape;
                    });
}

bool are_same(const std::vector<StateTensor>& one, const std::vector<StateTensor>& other) {
  return std::equal(one.begin(), one.end(), other.begin(), other.end(),
                    [](const StateTensor& left, const StateTensor& right) {
                      return left.kind == right.kind && left.arena_buffer == right.arena_buffer &&
                             left.offset == right.offset && left.outer == right.outer &&
                             left.rows == right.rows && left.row_bytes == right.row_bytes;
                    });
}

bool are_same(const OuterCache& one, const OuterCache& other) {
  return one.dtype == other.dtype && one.max_write == other.max_write &&
         std::equal(one.layers.begin(), one.layers.end(), other.layers.begin(), other.layers.end(),
                    [](const OuterCache::Layer& left, const OuterCache::Layer& right) {
                      return left.heads == right.heads && left.key_size == right.key_size &&
                             left.value_size == right.value_size && left.window == right.window;
                    });
}

// An adapter decodes what the others have begun: it takes and gives the same, and remembers it in
// the same places.
void expect_same_decoder(const Contract& ours, const Contract& given, const std::string& name) {
  const MethodSpec& one = ours.decoder();
  const MethodSpec& other = given.decoder();
  const bool fits = are_same(one.inputs, other.inputs) && are_same(one.outputs, other.outputs) &&
                    are_same(ours.state, given.state) &&
                    are_same(ours.outer_cache, given.outer_cache) &&
                    ours.capacity == given.capacity && ours.max_chunk == given.max_chunk &&
                    ours.step_name == given.step_name && ours.is_joint == given.is_joint &&
                    ours.kind == given.kind && ours.is_state_copied == given.is_state_copied;
  if (fits) return;
  throw Error(ErrorCode::kInput,
              "adapter: " + name + ": expected a program whose " + one.name +
                  " takes, gives and remembers what the loaded one's does, got another");
}

}  // namespace

EtModel::EtModel(std::unique_ptr<EtProgram> program, const LoadOptions& options)
    : options_(without_bytes(options)),
      first_(decoding_with(std::move(program))),
      contracts_(read(*first_->program, options)),
      outer_cache_(make_outer_cache(contracts_)) {
  for (const Contract& contract : contracts_)
    layout_.add(contract, first_->program->shared_buffers());
}

void EtModel::load_decoder(const Contract& contract) {
  load(contract, contract.decoder());
  if (!contract.step_name.empty()) load(contract, contract.methods.at(contract.step_name));
}

void EtModel::load(const Contract& contract, const MethodSpec& method) {
  first_->pointers.erase(method.name);
  first_->program->load_method(method);
  first_->pointers.emplace(method.name, find_pointers(*first_->program, contract, method.name));
  const Arena& arena = *first_->program->methods().at(method.name).arena;
  for (StateLayout::Memory& memory : layout_.memories) {
    if (memory.method != method.name && !memory.method.empty()) continue;
    memory.starts.push_back(arena.initial_pages(memory.buffer));
  }
}

void EtModel::load_adapter(const std::string& name, const AdapterFiles& files,
                           const Contract& contract) {
  if (name.empty() || adapters_.count(name) != 0) {
    throw Error(ErrorCode::kInput,
                "adapter: expected a name that is not in use, got '" + name + "'");
  }
  LoadOptions options = options_;
  if (options.model_path.empty() && files.model_path.empty()) {
    throw Error(ErrorCode::kInput,
                "adapter: expected a model that was loaded from a file, got one in memory");
  }
  if (!files.model_path.empty()) options.model_path = files.model_path;
  options.data_paths = beside_adapter(options_.data_paths, files.data_paths);
  if (files.model_path.empty() &&
      options.data_paths.size() == options_.data_paths.size() + files.data_paths.size()) {
    throw Error(ErrorCode::kInput,
                "adapter: " + name +
                    ": expected tensors with the names of loaded ones, got none: "
                    "give the adapter's own program with model_path=");
  }
  options.profile_path.clear();  // it is the first program's
  options.method = contract.decoder_name;
  const auto adapter = decoding_with(std::make_unique<EtProgram>(options));
  adapter->contracts = read(*adapter->program, options);
  const Contract& given = adapter->contracts[0];
  expect_same_decoder(contract, given, name);
  adapter->program->use_threads(program().num_threads());
  for (const std::string& method : {given.decoder_name, given.step_name}) {
    if (method.empty()) continue;
    adapter->program->load_method(given.methods.at(method));
    adapter->pointers.emplace(method, find_pointers(*adapter->program, contract, method));
  }
  adapter->number = ++num_loaded_adapters_;
  adapters_.emplace(name, adapter);
}

std::shared_ptr<EtModel::Decoding> EtModel::decoding(const std::string& name) const {
  if (name.empty()) return first_;
  const auto found = adapters_.find(name);
  if (found != adapters_.end()) return found->second;
  throw Error(ErrorCode::kInput, "adapter: expected a name that was loaded, got " + name);
}

void EtModel::drop_adapter(const std::string& name) {
  const auto found = adapters_.find(name);
  if (found == adapters_.end())
    throw Error(ErrorCode::kInput, "adapter: expected a name that was loaded, got " + name);
  if (found->second.use_count() > 1)
    throw Error(ErrorCode::kInput, "adapter: " + name + " is in use: use another one first");
  if (resident_.program == found->second->program.get()) {
    if (const auto state = resident_.state.lock()) bring_out(*state);
    resident_ = {};
  }
  adapters_.erase(found);
}

EtModel::Pointers EtModel::find_pointers(EtProgram& program, const Contract& contract,
                                         const std::string& method) {
  Pointers pointers;
  if (contract.is_state_copied) return pointers;
  const Arena& arena = *program.methods().at(method).arena;
  const std::vector<size_t>& memories = layout_.of.at(&contract);
  for (executorch::aten::TensorImpl* tensor : program.tensors(method)) {
    const auto* data = static_cast<const uint8_t*>(tensor->data());
    if (data == nullptr) continue;
    for (size_t i = 0; i < contract.state.size(); ++i) {
      const StateTensor& state = contract.state[i];
      const uint8_t* const begin = arena.at(state.arena_buffer, state.offset);
      if (data < begin || data >= begin + state.bytes()) continue;
      const uint64_t offset =
          state.offset - layout_.memories[memories[i]].begin + static_cast<uint64_t>(data - begin);
      pointers.targets.push_back({tensor, memories[i], offset});
      pointers.bases[memories[i]] = nullptr;
      break;
    }
  }
  return pointers;
}

void EtModel::point(Decoding& decoding, const MethodSpec& method, EtState& state) {
  Pointers& pointers = decoding.pointers.at(method.name);
  bool is_there = true;
  for (auto& [memory, base] : pointers.bases) {
    uint8_t* const wanted = state.data(memory);
    is_there &= base == wanted;
    base = wanted;
  }
  if (is_there) return;
  for (const Pointers::Target& target : pointers.targets)
    target.tensor->set_data(pointers.bases.at(target.memory) + target.offset);
}

std::vector<TensorView> EtModel::run_decoder(Decoding& decoding, const Contract& contract,
                                             const MethodSpec& method,
                                             const std::shared_ptr<EtState>& state,
                                             const std::vector<TensorView>& inputs,
                                             int64_t num_tokens, int64_t position) {
  if (contract.is_state_copied) {
    bring_in(*decoding.program, contract, state);
    state->first_changed_row = std::min(state->first_changed_row, position);
    state->num_used_rows = position + num_tokens;
  } else {
    state->begin_write(contract, position);
    point(decoding, method, *state);
  }
  return decoding.program->run(method.name, inputs, ErrorCode::kExecution);
}

void EtModel::bring_in(EtProgram& program, const Contract& contract,
                       const std::shared_ptr<EtState>& state) {
  const auto before = resident_.state.lock();
  if (before == state && resident_.contract == &contract && resident_.program == &program) return;
  if (before != nullptr) bring_out(*before);
  const Arena& arena = *program.methods().at(contract.decoder_name).arena;
  for_each_piece(contract.state, 0, state->num_used_rows,
                 [&](size_t i, size_t offset, size_t size) {
                   const StateTensor& tensor = contract.state[i];
                   std::memcpy(arena.at(tensor.arena_buffer, tensor.offset) + offset,
                               state->at(contract, i) + offset, size);
                 });
  resident_.state = state;
  resident_.contract = &contract;
  resident_.program = &program;
}

void EtModel::bring_out(EtState& state) {
  const int64_t first = std::exchange(state.first_changed_row, kUnchanged);
  if (first == kUnchanged) return;
  const Contract& contract = *resident_.contract;
  const Arena& arena = *resident_.program->methods().at(contract.decoder_name).arena;
  state.begin_write(contract, first);
  for_each_piece(contract.state, first, state.num_used_rows,
                 [&](size_t i, size_t offset, size_t size) {
                   const StateTensor& tensor = contract.state[i];
                   std::memcpy(state.at(contract, i) + offset,
                               arena.at(tensor.arena_buffer, tensor.offset) + offset, size);
                 });
}

void EtModel::settle(const std::shared_ptr<EtState>& state) {
  if (resident_.state.lock() == state) bring_out(*state);
}

void EtModel::forget(const std::shared_ptr<EtState>& state) {
  if (resident_.state.lock() == state) resident_.state.reset();
}

}  // namespace emm
