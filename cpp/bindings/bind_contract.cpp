#include <nanobind/stl/map.h>
#include <nanobind/stl/variant.h>
#include <algorithm>

#include "bindings/bindings.h"
#include "model/contract.h"

namespace emm::bindings {
namespace {

const char* position_style_name(PositionStyle style) {
  switch (style) {
    case PositionStyle::kNone:
      return "none";
    case PositionStyle::kStart:
      return "start";
    case PositionStyle::kRange:
      return "range";
  }
  return "none";
}

const char* kind_name(StateKind kind) {
  switch (kind) {
    case StateKind::kFlat:
      return "flat";
    case StateKind::kRing:
      return "ring";
    case StateKind::kWhole:
      break;
  }
  return "whole";
}

nb::tuple to_tuple(const Shape& shape) {
  nb::list sizes;
  for (const int64_t size : shape) sizes.append(size);
  return nb::tuple(sizes);
}

void bind_specs(nb::module_& module) {
  nb::class_<TensorSpec>(module, "TensorSpec",
                         "An input or output of a method, as the program declares it.")
      .def_prop_ro(
          "dtype", [](const TensorSpec& spec) { return std::string(dtype_name(spec.dtype)); },
          "numpy's name of the element type; 'other' where the value is not a tensor.")
      .def_prop_ro(
          "shape", [](const TensorSpec& spec) { return to_tuple(spec.shape); },
          nb::sig("def shape(self) -> tuple[int, ...]"),
          "Sizes; upper bounds where a dimension is dynamic.")
      .def_ro("is_planned", &TensorSpec::is_planned,
              "Inputs: True if ExecuTorch copies the array into its arena, False if it is used in "
              "place.")
      .def_ro("is_dynamic", &TensorSpec::is_dynamic,
              "Whether a call's sizes may be smaller in some dimension.")
      .def("__repr__", [](const TensorSpec& spec) {
        return "TensorSpec(" + TensorView{nullptr, spec.dtype, spec.shape}.describe() +
               (spec.is_planned ? ", planned)" : ")");
      });
  nb::class_<MethodSpec>(module, "MethodSpec", "The signature of one method of a program.")
      .def_ro("name", &MethodSpec::name)
      .def_ro("inputs", &MethodSpec::inputs)
      .def_ro("outputs", &MethodSpec::outputs)
      .def_ro("arena_bytes", &MethodSpec::arena_bytes, "Bytes of each planned buffer.")
      .def_ro("backends", &MethodSpec::backends, "Delegates that the method uses.")
      .def_prop_ro(
          "values",
          [](const MethodSpec& method) -> const TensorSpec* {
            const auto place = static_cast<size_t>(encoder_places(method).values);
            return place < method.inputs.size() ? &method.inputs[place] : nullptr;
          },
          nb::rv_policy::reference_internal, nb::sig("def values(self) -> TensorSpec"),
          "Of an encoder: the input that takes pixels, patches or features.")
      .def_prop_ro(
          "takes_positions",
          [](const MethodSpec& method) { return encoder_places(method).positions >= 0; },
          "Whether an encoder takes patches with position ids.")
      .def_prop_ro(
          "takes_mask", [](const MethodSpec& method) { return encoder_places(method).mask >= 0; },
          "Whether an encoder takes features with a mask of the frames.");
}

}  // namespace

void bind_contract(nb::module_& module) {
  bind_specs(module);
  nb::class_<Contract>(module, "Contract", "What a .pte promises. Read at load, never changed.")
      .def_prop_ro("is_multimodal",
                   [](const Contract& contract) { return contract.kind == ModelKind::kMultimodal; })
      .def_prop_ro(
          "is_speech", [](const Contract& contract) { return contract.kind == ModelKind::kSpeech; },
          "An encoder of audio clips whose outputs the decoder takes beside the tokens.")
      .def_prop_ro(
          "is_seq2seq",
          [](const Contract& contract) { return contract.kind == ModelKind::kSeq2Seq; },
          "An encoder of token ids whose outputs the decoder takes beside the tokens.")
      .def_prop_ro(
          "decoder", [](const Contract& contract) { return contract.decoder().name; },
          "Name of the method that reads prompts and writes tokens.")
      .def_ro("step_method", &Contract::step_name,
              "Of the method that reads single tokens; empty where that is the decoder.")
      .def_ro("choices", &Contract::choices, "Names of all decoders of the program.")
      .def_ro("is_state_shared", &Contract::is_state_shared,
              "The cache lies where the other decoders that say so have theirs.")
      .def_ro("is_state_copied", &Contract::is_state_copied,
              "A delegate may keep the addresses of the cache: it is copied when another session "
              "goes on, and not only pointed to.")
      .def_ro("methods", &Contract::methods, "Methods with inputs, by name.")
      .def_ro("metadata", &Contract::metadata, "Values of the constant methods, by name.")
      .def_ro("capacity", &Contract::capacity, "Positions the context holds.")
      .def_prop_ro(
          "ring_rows", [](const Contract& contract) { return contract.cache.ring_rows; },
          "Rows of the smallest ring cache, 0 when there is none.")
      .def_prop_ro(
          "is_recurrent", [](const Contract& contract) { return contract.cache.is_recurrent; },
          "Part of the state is a running summary: no rewind but to 0.")
      .def_prop_ro(
          "is_unbounded", [](const Contract& contract) { return contract.cache.is_unbounded; },
          "Positions may grow for ever; the capacity limits one request.")
      .def(
          "state_layout",
          [](const Contract& contract, int64_t num_positions) {
            std::vector<std::tuple<std::string, std::string, int64_t>> pieces;
            for (const StateTensor& tensor : contract.state) {
              pieces.emplace_back(kind_name(tensor.kind), dtype_name(tensor.dtype),
                                  tensor.bytes_of(num_positions));
            }
            const OuterCache& outer = contract.outer_cache;
            for (const OuterCache::Layer& layer : outer.layers) {
              const int64_t rows = outer.saved_rows(layer, num_positions) * layer.heads;
              const int64_t elements = 2 * rows * std::max(layer.key_size, layer.value_size);
              const char* const kind = layer.window > 0 ? "ring" : "flat";
              pieces.emplace_back(kind, dtype_name(outer.dtype),
                                  elements * static_cast<int64_t>(dtype_size(outer.dtype)));
              // Scales and zero points.
              if (outer.dtype == DType::kInt8) pieces.emplace_back(kind, "other", 2 * rows * 5);
            }
            return pieces;
          },
          "num_positions"_a,
          "What a decoder remembers of so many positions: for each buffer 'flat', 'ring' or\n"
          "'whole', numpy's name of its element type or 'other', and bytes.")
      .def_ro("all_logits", &Contract::all_logits,
              "A call gives logits for each of its tokens, not for the last one alone.")
      .def_ro(
          "num_alignment_heads", &Contract::num_alignment_heads,
          "Of a speech model: heads of which the decoder tells what they look at, for the times of "
          "words.")
      .def_prop_ro(
          "has_outer_cache",
          [](const Contract& contract) { return contract.outer_cache.is_used(); },
          "The program has no KV cache in its graph, the runner keeps it.")
      .def_ro("max_batch_tokens", &Contract::max_batch_tokens,
              "Tokens of one call that may belong to several conversations; 1 where it takes one "
              "conversation at a time.")
      .def_ro("max_chunk", &Contract::max_chunk, "Tokens that one decoder call takes at most.")
      .def_prop_ro(
          "position_style",
          [](const Contract& contract) {
            return std::string(position_style_name(contract.position_style));
          },
          "'start', 'range' or 'none' (no KV cache).")
      .def_ro("eos_ids", &Contract::eos_ids, "End tokens that the program names.")
      .def_ro("bos_id", &Contract::bos_id)
      .def_ro("vocab_size", &Contract::vocab_size, "Last dimension of the logits.")
      .def_ro("hidden_size", &Contract::hidden_size,
              "Features of an embedding; 0 for text-only models.")
      .def_ro("is_joint", &Contract::is_joint,
              "The decoder takes tokens and embeddings side by side.")
      .def_ro("placeholder_ids", &Contract::placeholder_ids,
              "Ids at which a joint decoder reads embeddings, as the program says or its "
              "instructions tell; may be empty.")
      .def_prop_ro(
          "image_encoder", [](const Contract& contract) { return contract.image_encoder(); },
          nb::rv_policy::reference_internal,
          nb::sig("def image_encoder(self) -> MethodSpec | None"),
          "Its method; None where the model takes no images.")
      .def_prop_ro(
          "audio_encoder", [](const Contract& contract) { return contract.audio_encoder(); },
          nb::rv_policy::reference_internal,
          nb::sig("def audio_encoder(self) -> MethodSpec | None"),
          "Its method; None where the model takes no audio.")
      .def_prop_ro(
          "audio_transform", [](const Contract& contract) { return contract.audio_transform(); },
          nb::rv_policy::reference_internal,
          nb::sig("def audio_transform(self) -> MethodSpec | None"),
          "The method that makes features of samples, or None.")
      .def_prop_ro("has_image_encoder",
                   [](const Contract& contract) { return contract.image_encoder() != nullptr; })
      .def_prop_ro("has_audio_encoder",
                   [](const Contract& contract) { return contract.audio_encoder() != nullptr; });
}

}  // namespace emm::bindings
