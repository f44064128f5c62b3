#include "model/folder_cache_reader.h"

#include <algorithm>
#include <string>
#include <utility>

#include "model/contract_checks.h"
#include "model/value_uses.h"

namespace emm {
namespace {

constexpr int64_t kMostCacheBytes = int64_t{1} << 40;

// A cache that is not changed in place and comes back longer.
bool grows(const NamedPart& decode, const CacheTensor& tensor) {
  if (tensor.is_in_place) return false;
  const auto output = decode.find_cache_output(tensor.name);
  if (!output) return false;
  const TensorSpec& given = decode.spec.outputs[*output];
  return given.is_dynamic && given.shape.size() == 4 && given.shape[2] > tensor.shape[2];
}

// A dynamic bound may be larger than the cache is; what the first call returns is its size.
void fix_rows(const NamedParts& parts, int64_t max_cache_len, size_t input, CacheTensor& tensor) {
  int64_t rows = parts.at("decode").spec.inputs[input].is_dynamic ? 0 : tensor.shape[2];
  std::string where = "decode takes";
  for (const char* name : {"prefill", "language_model"}) {
    const NamedPart* part = find_named(parts, name);
    const auto output = part != nullptr ? part->find_cache_output(tensor.name) : std::nullopt;
    if (!output) continue;
    const TensorSpec& given = part->spec.outputs[*output];
    if (given.is_dynamic || given.shape.size() != 4) continue;
    if (rows != 0 && rows != given.shape[2]) {
      refuse_contract(tensor.name + ": " + where + " " + std::to_string(rows) + " rows, " + name +
                      " gives " + std::to_string(given.shape[2]));
    }
    rows = given.shape[2];
    where = std::string(name) + " gives";
  }
  if (rows == 0) rows = max_cache_len;
  if (rows == 0) rows = tensor.shape[2];
  if (rows < 1 || rows > tensor.shape[2]) {
    refuse_contract(tensor.name + ": expected a cache of 1.." + std::to_string(tensor.shape[2]) +
                    " rows, which decode takes, got " + std::to_string(rows));
  }
  tensor.shape[2] = rows;
}

// For whatever a part may return.
void make_room(const NamedParts& parts, CacheTensor& tensor) {
  for (const char* name : {"decode", "prefill", "language_model"}) {
    const NamedPart* part = find_named(parts, name);
    const auto output = part != nullptr ? part->find_cache_output(tensor.name) : std::nullopt;
    if (!output) continue;
    const TensorSpec& given = part->spec.outputs[*output];
    const int64_t bytes = num_elements(given.shape) * static_cast<int64_t>(dtype_size(given.dtype));
    if (bytes < 1 || bytes > kMostCacheBytes)
      refuse_contract(part->names.name + ": output " + tensor.name +
                      ": expected a cache of usual size");
    tensor.memory_bytes = std::max(tensor.memory_bytes, static_cast<uint64_t>(bytes));
  }
}

}  // namespace

std::vector<CacheTensor> read_cache(const NamedParts& parts, int64_t max_cache_len,
                                    FolderCall& call) {
  const NamedPart& decode = parts.at("decode");
  std::vector<CacheTensor> cache;
  for (size_t i = 0; i < decode.names.inputs.size(); ++i) {
    if (call.inputs[i].feed != Feed::kCache) continue;
    const TensorSpec& spec = decode.spec.inputs[i];
    CacheTensor tensor;
    tensor.name = in_cache(decode.names.inputs[i]);
    tensor.dtype = spec.dtype;
    tensor.shape = spec.shape;
    const bool has_rows = ends_with(tensor.name, ".keys") || ends_with(tensor.name, ".values");
    if (dtype_size(spec.dtype) == 0 || (has_rows && (spec.shape.size() != 4 || spec.shape[0] != 1)))
      decode.refuse_input(i, has_rows ? "a cache (1, heads, rows, features)" : "a tensor");
    tensor.kind = has_rows ? StateKind::kFlat : StateKind::kWhole;
    const int64_t bytes = num_elements(spec.shape) * static_cast<int64_t>(dtype_size(spec.dtype));
    if (bytes < 1 || bytes > kMostCacheBytes) decode.refuse_input(i, "a cache of usual size");
    tensor.memory_bytes = static_cast<uint64_t>(bytes);
    const int32_t value = decode.program.inputs[i];
    const auto& outputs = decode.program.outputs;
    tensor.is_in_place = std::find(outputs.begin(), outputs.end(), value) != outputs.end();
    tensor.is_planned = spec.is_planned;
    const ProgramTensor& place = *decode.program.tensor(value);
    if (tensor.is_in_place && place.is_planned && place.memory_id > 0 &&
        is_alone(decode.program, place)) {
      tensor.kept = static_cast<size_t>(place.memory_offset);
      tensor.arena_buffer = place.memory_id - 1;
    }
    tensor.grows = has_rows && grows(decode, tensor);
    if (has_rows && !tensor.grows) fix_rows(parts, max_cache_len, i, tensor);
    if (!tensor.kept) make_room(parts, tensor);
    if (!tensor.is_in_place && !decode.find_cache_output(tensor.name))
      refuse_contract("decode: expected an output for " + decode.names.inputs[i] +
                      ", which the program does not change in place");
    call.inputs[i].cache = cache.size();
    cache.push_back(std::move(tensor));
  }
  if (cache.empty())
    refuse_contract("decode: expected a cache among its inputs, export.json's in_spec has none");
  return cache;
}

std::vector<std::optional<size_t>> cache_outputs(const NamedPart& part,
                                                 const std::vector<CacheTensor>& cache) {
  std::vector<std::optional<size_t>> outputs;
  for (const CacheTensor& tensor : cache) {
    const std::optional<size_t> output = part.find_cache_output(tensor.name);
    outputs.push_back(output);
    if (!output) continue;
    const TensorSpec& given = part.spec.outputs[*output];
    Shape shape = given.shape;
    if (shape.size() == 4 && tensor.kind == StateKind::kFlat) shape[2] = tensor.shape[2];
    const bool is_same = given.dtype == tensor.dtype && shape == tensor.shape;
    if (!is_same) {
      refuse_contract(part.names.name + ": output " + tensor.name + ": expected " +
                      dtype_name(tensor.dtype) + " " + shape_string(tensor.shape) +
                      " as decode takes it, got " + dtype_name(given.dtype) + " " +
                      shape_string(given.shape));
    }
  }
  return outputs;
}

}  // namespace emm
