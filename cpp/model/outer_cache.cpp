#include "model/outer_cache.h"

#include <algorithm>
#include <string>

#include "base/error.h"
#include "model/contract_checks.h"
#include "model/signatures.h"

namespace emm {
namespace {

constexpr const char* kOperator = "kvcache::update_and_attend.out";
// What no model needs, so that a damaged file cannot ask for any amount of memory.
constexpr int64_t kMostLayers = 4096;
constexpr int64_t kMostElements = 1 << 24;  // of a row

// Empty where the instruction calls none.
std::string kernel_of(const ProgramMethod& method, const ProgramInstruction& instruction) {
  const auto index = static_cast<size_t>(instruction.index);
  const bool is_kernel = instruction.kind == InstructionKind::kKernel && instruction.index >= 0 &&
                         index < method.operators.size();
  return is_kernel ? method.operators[index] : "";
}

bool is_call(const ProgramMethod& method, const ProgramInstruction& instruction) {
  return kernel_of(method, instruction) == kOperator && instruction.args.size() > 4;
}

// Whether an instruction has anything to do with the value, by itself or in a list.
bool reads(const ProgramMethod& method, const ProgramInstruction& instruction, int32_t value) {
  if (instruction.kind == InstructionKind::kMove &&
      (instruction.index == value || instruction.target == value))
    return true;
  return std::any_of(instruction.args.begin(), instruction.args.end(), [&](int32_t arg) {
    if (arg == value) return true;
    if (arg < 0 || static_cast<size_t>(arg) >= method.values.size()) return false;
    const ProgramValue& list = method.values[static_cast<size_t>(arg)];
    return (list.kind == ValueKind::kTensorList || list.kind == ValueKind::kOptionalTensorList) &&
           std::find(list.items.begin(), list.items.end(), value) != list.items.end();
  });
}

template <typename Visit>
void for_each_call(const ProgramMethod& method, Visit visit) {
  for (const auto& chain : method.chains) {
    for (const ProgramInstruction& instruction : chain) {
      if (is_call(method, instruction)) visit(instruction);
    }
  }
}

const ProgramTensor& heads_of(const ProgramMethod& method, const ProgramInstruction& call,
                              size_t arg, const std::string& where) {
  const ProgramTensor* tensor = method.tensor(call.args[arg]);
  if (tensor == nullptr || tensor->sizes.size() != 4)
    refuse_contract(where + ": expected key and value of four dimensions");
  if (tensor->sizes[0] != 1) {
    refuse_contract(where + ": expected a batch of 1, got " + std::to_string(tensor->sizes[0]) +
                    ": several conversations share the axis of the tokens, each token with its "
                    "position. Export with ids (1, tokens) and positions (tokens)");
  }
  if (tensor->sizes[1] < 1 || tensor->sizes[3] < 1 ||
      int64_t{tensor->sizes[1]} * tensor->sizes[3] > kMostElements) {
    refuse_contract(where + ": expected 1 to " + std::to_string(kMostElements) +
                    " elements of key or value for a token, got " +
                    std::to_string(tensor->sizes[1]) + " heads of " +
                    std::to_string(tensor->sizes[3]));
  }
  return *tensor;
}

void add_call(const ProgramMethod& method, const ProgramInstruction& call, OuterCache& cache) {
  const int32_t layer_value = call.args[4];
  const bool is_number = layer_value >= 0 &&
                         static_cast<size_t>(layer_value) < method.values.size() &&
                         method.values[static_cast<size_t>(layer_value)].kind == ValueKind::kInt;
  const int64_t number =
      is_number ? method.values[static_cast<size_t>(layer_value)].integer : int64_t{-1};
  const std::string where = method.name + ": layer " + std::to_string(number) + " of the cache";
  if (number < 0 || number >= kMostLayers)
    refuse_contract(where + ": expected a number from 0 to " + std::to_string(kMostLayers - 1));
  const ProgramTensor& key = heads_of(method, call, 1, where);
  const ProgramTensor& value = heads_of(method, call, 2, where);
  if (key.sizes[1] != value.sizes[1])
    refuse_contract(where + ": expected as many heads of key and value");
  const OuterCache::Layer layer{key.sizes[1], key.sizes[3], value.sizes[3], 0};
  if (cache.layers.size() <= static_cast<size_t>(number))
    cache.layers.resize(static_cast<size_t>(number) + 1);
  OuterCache::Layer& known = cache.layers[static_cast<size_t>(number)];
  if (known.heads != 0 && (known.heads != layer.heads || known.key_size != layer.key_size ||
                           known.value_size != layer.value_size)) {
    refuse_contract(where + ": expected the same heads in all calls, got " +
                    std::to_string(known.heads) + " of " + std::to_string(known.key_size) +
                    " and " + std::to_string(layer.heads) + " of " +
                    std::to_string(layer.key_size));
  }
  known = layer;
  const DType dtype = to_dtype(key.scalar_type);
  const bool is_half = dtype == DType::kFloat16 || dtype == DType::kBFloat16;
  cache.dtype = is_half ? dtype : DType::kFloat32;
}

void add_windows(const ProgramInfo& program, const Signatures& signatures, OuterCache& cache) {
  if (program.find("get_windows") == nullptr) return;
  const std::vector<int64_t> windows = int_list(signatures, "get_windows");
  const bool fits = windows.size() == cache.layers.size() &&
                    std::all_of(windows.begin(), windows.end(),
                                [](int64_t window) { return window >= 0 && window <= INT32_MAX; });
  if (!fits) {
    refuse_contract("get_windows: expected a list of " + std::to_string(cache.layers.size()) +
                    " ints, the window of each layer or 0; a tensor cannot be read. Export again "
                    "with constant_methods={\"get_windows\": [...]}");
  }
  for (size_t i = 0; i < windows.size(); ++i) cache.layers[i].window = windows[i];
}

}  // namespace

bool uses_outer_cache(const ProgramMethod& method) {
  bool found = false;
  for_each_call(method, [&](const ProgramInstruction&) { found = true; });
  return found;
}

OuterCache find_outer_cache(const ProgramInfo& program, const Signatures& signatures) {
  OuterCache cache;
  for (const ProgramMethod& method : program.methods) {
    for_each_call(method, [&](const ProgramInstruction& call) { add_call(method, call, cache); });
  }
  if (!cache.layers.empty()) add_windows(program, signatures, cache);
  return cache;
}

bool takes_sources_apart(const ProgramMethod& method, size_t num_sources) {
  bool is_called = false;
  std::string wrong;
  for (const auto& chain : method.chains) {
    for (const ProgramInstruction& instruction : chain) {
      const std::string name = kernel_of(method, instruction);
      const bool is_ours = name.rfind("executorch_mm::cross_", 0) == 0;
      is_called |= is_ours;
      for (size_t input = 1; !is_ours && input <= num_sources; ++input) {
        if (wrong.empty() && reads(method, instruction, method.inputs[input]))
          wrong = "input " + std::to_string(input) + ": expected executorch_mm::cross_attend and " +
                  "cross_weights alone to read what the encoder made, got " +
                  (name.empty() ? "another instruction" : name);
      }
    }
  }
  for (size_t input = 1; wrong.empty() && input <= num_sources; ++input) {
    const ProgramTensor* tensor = method.tensor(method.inputs[input]);
    if (tensor == nullptr || tensor->sizes.size() != 4 || tensor->sizes[0] != 1 ||
        tensor->is_planned)
      wrong = "input " + std::to_string(input) +
              ": expected (1, T, heads, size) in the caller's memory: export with "
              "MemoryPlanningPass(alloc_graph_input=False)";
  }
  if (is_called && !wrong.empty()) refuse_contract(method.name + ": " + wrong);
  return is_called;
}

DType outer_cache_dtype(const std::string& name) {
  for (const DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16, DType::kInt8}) {
    if (name == dtype_name(dtype)) return dtype;
  }
  throw Error(ErrorCode::kInput,
              "kv_cache_dtype: expected float32, float16, bfloat16 or int8, got " + name);
}

}  // namespace emm
