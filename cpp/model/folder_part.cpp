#include "model/folder_part.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "model/contract_checks.h"
#include "model/signatures.h"
#include "model/value_uses.h"

namespace emm {
namespace {

bool starts_with(const std::string& text, const std::string& start) {
  return text.compare(0, start.size(), start) == 0;
}

bool is_length(const std::string& name) { return ends_with(name, ".cumulative_length"); }

bool is_float(DType dtype) {
  return std::find(kFloats.begin(), kFloats.end(), dtype) != kFloats.end();
}

bool is_read(const ProgramMethod& method, int32_t value) {
  for (const auto& chain : method.chains) {
    for (const ProgramInstruction& instruction : chain) {
      if (std::find(instruction.args.begin(), instruction.args.end(), value) !=
          instruction.args.end())
        return true;
      const bool is_move = instruction.kind == InstructionKind::kMove;
      if ((is_move || instruction.kind == InstructionKind::kJumpFalse) &&
          instruction.index == value)
        return true;
    }
  }
  for (const ProgramValue& list : method.values) {
    const bool is_list =
        list.kind == ValueKind::kTensorList || list.kind == ValueKind::kOptionalTensorList;
    if (is_list && std::find(list.items.begin(), list.items.end(), value) != list.items.end())
      return true;
  }
  return false;
}

// What the input takes, by its name, and by its shape for a tensor of that name.
Feed feed_of(const NamedPart& part, size_t i, bool is_decoder) {
  const std::string& name = part.names.inputs[i];
  const TensorSpec& spec = part.spec.inputs[i];
  const size_t rank = spec.shape.size();
  const int32_t value = part.program.inputs[i];
  if (part.program.tensor(value) == nullptr) {
    const ProgramValue& given = part.program.values[static_cast<size_t>(value)];
    if (given.kind != ValueKind::kNull) part.refuse_input(i, "a tensor or nothing");
    return Feed::kNone;
  }
  if (is_cache(name)) {
    if (!is_length(name)) return Feed::kCache;
    if (spec.dtype != DType::kInt64 || num_elements(spec.shape) != 1)
      part.refuse_input(i, "one int64");
    return Feed::kLength;
  }
  const bool is_int = spec.dtype == DType::kInt64 || spec.dtype == DType::kInt32;
  const auto one_of = [&](size_t batch_dim) {
    return rank > batch_dim && spec.shape[batch_dim] == 1;
  };
  if (is_decoder && name == "input_ids") {
    if (!is_int || rank != 2 || !one_of(0)) part.refuse_input(i, "token ids (1, tokens)");
    return Feed::kIds;
  }
  if (is_decoder && name == "inputs_embeds") {
    if (!is_float(spec.dtype) || rank != 3 || !one_of(0))
      part.refuse_input(i, "embeddings (1, tokens, features)");
    return Feed::kEmbeddings;
  }
  if (is_decoder && (name == "position_ids" || name == "cache_position")) {
    if (!is_int || rank < 1 || rank > 3 || (rank > 1 && !one_of(rank - 2)))
      part.refuse_input(i, "positions (1, tokens)");
    return Feed::kPositions;
  }
  if (is_decoder && starts_with(name, "attention_mask")) {
    if (spec.dtype == DType::kBool && rank == 4 && one_of(0) && one_of(1)) return Feed::kMask;
    if ((is_int || spec.dtype == DType::kBool) && rank == 2 && one_of(0)) return Feed::kFlags;
    part.refuse_input(i, "a mask, bool (1, 1, tokens, keys) or ints (1, keys)");
  }
  if (!is_read(part.program, value)) return Feed::kZeros;
  if (is_decoder && ends_with(name, "token_type_ids") && is_int && rank == 2) return Feed::kTypes;
  if (!is_decoder && name.find("mask") != std::string::npos) return Feed::kOnes;
  if (!is_decoder && is_float(spec.dtype)) return Feed::kMedia;
  part.refuse_input(i, is_decoder ? "nothing that this runner does not know"
                                  : "nothing but the image or clip and its mask");
}

}  // namespace

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() &&
         text.compare(text.size() - end.size(), std::string::npos, end) == 0;
}

bool is_cache(const std::string& name) {
  return starts_with(name, "cache.") || starts_with(name, "past_key_values.");
}

std::string in_cache(const std::string& name) { return name.substr(name.find('.') + 1); }

void NamedPart::refuse_input(size_t i, const std::string& expected) const {
  const TensorSpec& got = spec.inputs[i];
  const bool is_tensor = got.dtype != DType::kOther || !got.shape.empty();
  refuse_contract(names.name + ": input " + std::to_string(i) + " (" + names.inputs[i] +
                  "): expected " + expected + ", got " +
                  (is_tensor ? std::string(dtype_name(got.dtype)) + " " + shape_string(got.shape)
                             : "no tensor"));
}

std::optional<size_t> NamedPart::find_output(const std::string& name) const {
  const auto found = std::find(names.outputs.begin(), names.outputs.end(), name);
  if (found == names.outputs.end()) return std::nullopt;
  return first_output + static_cast<size_t>(found - names.outputs.begin());
}

std::optional<size_t> NamedPart::find_input(const std::string& name) const {
  const auto found = std::find(names.inputs.begin(), names.inputs.end(), name);
  if (found == names.inputs.end()) return std::nullopt;
  return static_cast<size_t>(found - names.inputs.begin());
}

std::optional<size_t> NamedPart::find_cache_output(const std::string& name_in_cache) const {
  for (size_t i = 0; i < names.outputs.size(); ++i) {
    if (is_cache(names.outputs[i]) && in_cache(names.outputs[i]) == name_in_cache)
      return first_output + i;
  }
  return std::nullopt;
}

Shape NamedPart::traced_shape(size_t i) const {
  const Shape& traced = names.shapes[i];
  if (!traced.empty() && !spec.inputs[i].may_be(traced))
    refuse_input(i, "room for " + shape_string(traced) + " as export.json has it");
  return traced.empty() ? spec.inputs[i].shape : traced;
}

NamedPart read_part(const FolderPart& names, const ProgramInfo& program) {
  const ProgramMethod* method = program.find("forward");
  if (method == nullptr)
    refuse_contract(names.name + ": expected a program with the method forward");
  MethodSpec spec = read_methods(program).at("forward");
  if (spec.inputs.size() != names.inputs.size()) {
    refuse_contract(names.name + ": export.json's in_spec names " +
                    std::to_string(names.inputs.size()) + " inputs, the program takes " +
                    std::to_string(spec.inputs.size()));
  }
  if (names.outputs.empty() || spec.outputs.size() < names.outputs.size()) {
    refuse_contract(names.name + ": export.json's out_spec names " +
                    std::to_string(names.outputs.size()) + " outputs, the program gives " +
                    std::to_string(spec.outputs.size()));
  }
  const size_t first = spec.outputs.size() - names.outputs.size();
  return {names, *method, std::move(spec), first};
}

FolderCall read_call(const NamedPart& part, bool is_decoder) {
  FolderCall call;
  call.method = part.spec;
  call.path = part.names.path;
  size_t num_media = 0;
  for (size_t i = 0; i < part.names.inputs.size(); ++i) {
    PartInput input;
    input.feed = feed_of(part, i, is_decoder);
    input.dtype = part.spec.inputs[i].dtype;
    input.shape = part.spec.inputs[i].shape;
    const bool is_kept =
        input.feed == Feed::kZeros || input.feed == Feed::kOnes || input.feed == Feed::kMedia;
    if (is_kept) input.shape = part.traced_shape(i);
    if (input.feed == Feed::kMedia && num_media++ > 0)
      part.refuse_input(i, "only one input of this kind");
    if (input.feed == Feed::kIds || input.feed == Feed::kEmbeddings) {
      call.max_tokens = input.shape[1];
      const bool is_flexible = part.spec.inputs[i].is_dynamic || input.shape[1] == 1;
      if (!is_flexible && is_decoder)
        part.refuse_input(i, "one token for each call or a dynamic length");
    }
    call.inputs.push_back(std::move(input));
  }
  if (!is_decoder && num_media != 1)
    refuse_contract(part.names.name + ": expected one input for an image or a clip, got " +
                    std::to_string(num_media));
  return call;
}

size_t expect_result(const NamedPart& part, const std::string& name, size_t rank) {
  const auto found = part.find_output(name);
  // A program that returns one tensor has no name for it.
  const bool is_lone = part.names.outputs.size() == 1;
  if (!found && !is_lone)
    refuse_contract(part.names.name + ": expected an output " + name +
                    ", export.json's out_spec has none");
  const size_t index = found.value_or(part.first_output);
  const TensorSpec& spec = part.spec.outputs[index];
  const bool fits = is_float(spec.dtype) && (rank == 0 || spec.shape.size() == rank) &&
                    !spec.shape.empty() && spec.shape.back() > 0;
  if (!fits) {
    refuse_contract(part.names.name + ": output " + name + ": expected floats, got " +
                    dtype_name(spec.dtype) + " " + shape_string(spec.shape));
  }
  return index;
}

// Whether nothing else lies where the tensor does, so that it stays between calls.
bool is_alone(const ProgramMethod& method, const ProgramTensor& tensor) {
  return std::none_of(method.tensors.begin(), method.tensors.end(),
                      [&](const ProgramTensor& other) {
                        return &other != &tensor && other.data_index == 0 && overlap(tensor, other);
                      });
}

std::optional<EmbeddingTable> find_embeddings(const ProgramInfo& program,
                                              const ProgramMethod& method, int32_t ids) {
  for (const auto& chain : method.chains) {
    for (const ProgramInstruction& call : chain) {
      const bool is_lookup =
          call.kind == InstructionKind::kKernel && call.index >= 0 &&
          static_cast<size_t>(call.index) < method.operators.size() &&
          starts_with(method.operators[static_cast<size_t>(call.index)], "aten::embedding.") &&
          call.args.size() > 1 && call.args[1] == ids;
      if (!is_lookup) continue;
      const ProgramTensor* table = method.tensor(call.args[0]);
      if (table == nullptr || table->data_index == 0 || table->sizes.size() != 2 ||
          table->is_external || !program.constants ||
          table->data_index >= program.constants->offsets.size())
        return std::nullopt;
      const uint64_t begin = program.constants->offsets[table->data_index];
      const ProgramSegment& segment = program.segments[program.constants->segment];
      const uint64_t bytes = tensor_bytes(*table).value_or(0);
      if (begin > segment.bytes || bytes > segment.bytes - begin) return std::nullopt;
      const std::string name = scalar_type_name(table->scalar_type);
      for (const DType dtype : kFloats) {
        if (name == dtype_name(dtype))
          return EmbeddingTable{program.segment_base + segment.offset + begin, table->sizes[0],
                                table->sizes[1], dtype};
      }
      return std::nullopt;
    }
  }
  return std::nullopt;
}

}  // namespace emm
