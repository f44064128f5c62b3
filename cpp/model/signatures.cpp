#include "model/signatures.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

namespace emm {

DType to_dtype(int8_t scalar_type) {
  const std::string name = scalar_type_name(scalar_type);
  for (int dtype = 0; dtype < static_cast<int>(DType::kOther); ++dtype) {
    if (name == dtype_name(static_cast<DType>(dtype))) return static_cast<DType>(dtype);
  }
  return DType::kOther;
}

namespace {

std::vector<TensorSpec> to_specs(const ProgramMethod& method, const std::vector<int32_t>& values) {
  std::vector<TensorSpec> specs;
  for (const int32_t value : values) {
    TensorSpec& spec = specs.emplace_back();
    const ProgramTensor* tensor = method.tensor(value);
    if (tensor == nullptr) continue;
    spec.dtype = to_dtype(tensor->scalar_type);
    spec.shape.assign(tensor->sizes.begin(), tensor->sizes.end());
    // A constant that is returned has a place too.
    spec.is_planned = tensor->is_planned || tensor->data_index != 0;
    spec.is_dynamic = tensor->is_dynamic;
  }
  return specs;
}

MethodSpec read_method(const ProgramMethod& method) {
  MethodSpec spec;
  spec.name = method.name;
  spec.inputs = to_specs(method, method.inputs);
  spec.outputs = to_specs(method, method.outputs);
  if (!method.arena_bytes.empty())
    spec.arena_bytes.assign(method.arena_bytes.begin() + 1, method.arena_bytes.end());
  for (const ProgramDelegate& delegate : method.delegates) spec.backends.push_back(delegate.id);
  return spec;
}

std::optional<MetadataValue> to_metadata(const ProgramValue& value) {
  switch (value.kind) {
    case ValueKind::kInt:
      return value.integer;
    case ValueKind::kBool:
      return value.integer != 0;
    case ValueKind::kDouble:
      return value.real;
    case ValueKind::kString:
      return value.text;
    default:
      return std::nullopt;
  }
}

bool is_ids(const TensorSpec& spec, size_t rank) {
  return spec.shape.size() == rank && (spec.dtype == DType::kInt64 || spec.dtype == DType::kInt32);
}

bool is_floats(const TensorSpec& spec, size_t rank) {
  return spec.shape.size() == rank &&
         (spec.dtype == DType::kFloat32 || spec.dtype == DType::kFloat16 ||
          spec.dtype == DType::kBFloat16);
}

// A constant method's outputs: one value, or one for each element of a list of numbers.
std::optional<MetadataValue> read_constant(const ProgramMethod& method) {
  std::vector<int64_t> ints;
  std::vector<double> reals;
  for (const int32_t index : method.outputs) {
    if (index < 0 || static_cast<size_t>(index) >= method.values.size()) return std::nullopt;
    const ProgramValue& value = method.values[static_cast<size_t>(index)];
    if (method.outputs.size() == 1) return to_metadata(value);
    if (value.kind == ValueKind::kInt)
      ints.push_back(value.integer);
    else if (value.kind == ValueKind::kDouble)
      reals.push_back(value.real);
    else
      return std::nullopt;
  }
  if (ints.empty() == reals.empty()) return std::nullopt;
  if (reals.empty()) return ints;
  return reals;
}

}  // namespace

std::map<std::string, MethodSpec> read_methods(const ProgramInfo& program) {
  std::map<std::string, MethodSpec> methods;
  for (const ProgramMethod& method : program.methods)
    methods.emplace(method.name, read_method(method));
  return methods;
}

Signatures read_signatures(const ProgramInfo& program) {
  Signatures signatures;
  for (const ProgramMethod& method : program.methods) {
    if (!method.inputs.empty())
      signatures.methods.emplace(method.name, read_method(method));
    else if (auto value = read_constant(method))
      signatures.metadata.emplace(method.name, *std::move(value));
  }
  return signatures;
}

DecoderInputs decoder_inputs(const MethodSpec& decoder) {
  DecoderInputs places;
  const auto& inputs = decoder.inputs;
  if (inputs.empty()) return places;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const int place = static_cast<int>(i);
    if (places.tokens < 0 && is_ids(inputs[i], 2)) places.tokens = place;
    if (places.embeddings < 0 && is_floats(inputs[i], 3)) places.embeddings = place;
    if (is_ids(inputs[i], 1)) places.position = place;
  }
  // Floats of another length are what an encoder has made of a whole clip.
  const auto length = [&](int place) { return inputs[static_cast<size_t>(place)].shape[1]; };
  if (places.are_joint() && length(places.tokens) != length(places.embeddings))
    places.embeddings = -1;
  // Whatever comes last behind tokens or embeddings is meant as positions, and checked as such.
  if (places.position < 0 && inputs.size() > 1)
    places.position = static_cast<int>(inputs.size() - 1);
  return places;
}

EncoderPlaces encoder_places(const MethodSpec& encoder) {
  EncoderPlaces places;
  const auto rank = [](const TensorSpec& spec) { return spec.shape.size(); };
  const auto& inputs = encoder.inputs;
  for (size_t i = 1; i < inputs.size(); ++i) {
    if (rank(inputs[i]) > rank(inputs[static_cast<size_t>(places.values)]))
      places.values = static_cast<int>(i);
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    const int place = static_cast<int>(i);
    const bool is_grid = is_ids(inputs[i], 3) && inputs[i].shape[2] == 2;
    if (inputs.size() > 1 && is_grid) {
      places.positions = place;
      if (places.values == place) places.values = place == 0 ? 1 : 0;
    } else if (place != places.values) {
      places.mask = place;
    }
  }
  const auto& outputs = encoder.outputs;
  for (size_t i = 1; i < outputs.size(); ++i) {
    if (rank(outputs[i]) > rank(outputs[static_cast<size_t>(places.rows)]))
      places.rows = static_cast<int>(i);
  }
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (static_cast<int>(i) != places.rows) places.rows_mask = static_cast<int>(i);
  }
  return places;
}

std::vector<std::string> find_joint_decoders(const Signatures& signatures) {
  std::vector<std::string> names;
  for (const auto& [name, method] : signatures.methods) {
    const DecoderInputs places = decoder_inputs(method);
    const size_t rank = method.outputs.empty() ? 0 : method.outputs[0].shape.size();
    if (places.are_joint() && method.inputs.size() == 3 && (rank == 2 || rank == 3))
      names.push_back(name);
  }
  return names;
}

std::vector<std::string> find_decoders(const Signatures& signatures, int64_t hidden_size) {
  std::vector<std::string> names;
  for (const auto& [name, method] : signatures.methods) {
    if (method.inputs.size() != 2 || method.outputs.size() != 1) continue;
    const Shape& first = method.inputs[0].shape;
    const bool is_read = hidden_size > 0 ? first.size() == 3 && first[2] == hidden_size
                                         : is_ids(method.inputs[0], 2);
    const size_t rank = method.outputs[0].shape.size();
    if (is_read && is_ids(method.inputs[1], 1) && (rank == 2 || rank == 3)) names.push_back(name);
  }
  return names;
}

ModelKind model_kind(const Signatures& signatures) {
  const auto has = [&](const char* name) { return signatures.find(name) != nullptr; };
  if (has("encoder") && has("decoder_step") && has("joint")) return ModelKind::kTransducer;
  if (has("token_embedding") && has("text_decoder")) return ModelKind::kMultimodal;
  const bool has_both = has("encoder") && has("text_decoder");
  if (!has_both && !find_joint_decoders(signatures).empty()) return ModelKind::kMultimodal;
  if (has("forward")) return ModelKind::kText;
  if (has_both) {
    const std::vector<TensorSpec>& inputs = signatures.find("encoder")->inputs;
    return !inputs.empty() && is_ids(inputs[0], 2) ? ModelKind::kSeq2Seq : ModelKind::kSpeech;
  }
  return find_decoders(signatures).empty() ? ModelKind::kOther : ModelKind::kText;
}

}  // namespace emm
