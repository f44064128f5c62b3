#include <algorithm>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "base/error.h"
#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "runtime/content_units.h"
#include "runtime/inputs.h"

namespace emm::bindings {
namespace {

using TokenArray = nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// Of an array's memory, held by a reference that may be dropped in the midst of native work.
struct SharedArray {
  TensorView view;
  std::shared_ptr<const void> owner;
};

SharedArray share(Array array) {
  const TensorView view = to_view(array);
  return {view, std::shared_ptr<Array>(new Array(std::move(array)), DeleteWithGil())};
}

SharedArray share(std::optional<Array> array) {
  return array ? share(std::move(*array)) : SharedArray{};
}

std::string content_unit(const nb::bytes& content) {
  std::string unit(content.c_str(), content.size());
  if (unit.empty() || unit.size() == kUnitBytes) return unit;
  throw Error(ErrorCode::kInput, "content: expected " + std::to_string(kUnitBytes) +
                                     " bytes or none, got " + std::to_string(unit.size()));
}

template <typename Kind>
PreparedInput with_beside(Array array, std::optional<Array> beside, int64_t placeholder_id,
                          const nb::bytes& content) {
  SharedArray values = share(std::move(array));
  SharedArray other = share(std::move(beside));
  return {Kind{std::move(values.view), std::move(values.owner), std::move(other.view),
               std::move(other.owner), placeholder_id, content_unit(content)}};
}

std::optional<nb::bytes> units_of(const PreparedInput& part) {
  const auto* const tokens = std::get_if<TokenInput>(&part.input);
  const std::string units = tokens != nullptr ? token_units(tokens->ids) : content_of(part.input);
  if (tokens == nullptr && units.empty()) return std::nullopt;
  return nb::bytes(units.data(), units.size());
}

PreparedInput behind(const PreparedInput& part, size_t num_tokens) {
  const auto& ids = std::get<TokenInput>(part.input).ids;
  const size_t first = std::min(num_tokens, ids.size());
  return {TokenInput{{ids.begin() + static_cast<std::ptrdiff_t>(first), ids.end()}}};
}

struct AddressOf {
  uintptr_t operator()(const TokenInput& tokens) const {
    return reinterpret_cast<uintptr_t>(tokens.ids.data());
  }
  uintptr_t operator()(const ImageInput& image) const {
    return reinterpret_cast<uintptr_t>(image.pixels.data);
  }
  uintptr_t operator()(const AudioInput& audio) const {
    return reinterpret_cast<uintptr_t>(audio.features.data);
  }
  uintptr_t operator()(const EmbeddingInput& rows) const {
    return reinterpret_cast<uintptr_t>(rows.rows.data);
  }
  uintptr_t operator()(const SourceInput& source) const {
    return reinterpret_cast<uintptr_t>(source.ids.data());
  }
};

}  // namespace

void bind_inputs(nb::module_& module) {
  nb::class_<PreparedInput>(
      module, "PreparedInput",
      "One part of a prompt, as the core takes it. Arrays are shared, not copied.")
      .def_static(
          "tokens",
          [](const TokenArray& ids) {
            return PreparedInput{TokenInput{{ids.data(), ids.data() + ids.size()}}};
          },
          nb::arg("ids").noconvert(), "Token ids, int64 (num_tokens,).")
      .def_static(
          "source",
          [](const TokenArray& ids) {
            return PreparedInput{SourceInput{{ids.data(), ids.data() + ids.size()}}};
          },
          nb::arg("ids").noconvert(),
          "Token ids for the encoder of a text-to-text model, int64 (num_tokens,).")
      .def_static("image", with_beside<ImageInput>, nb::arg("pixels").noconvert(),
                  nb::arg("positions").noconvert().none() = nb::none(),
                  nb::arg("placeholder_id") = -1, nb::arg("content") = nb::bytes("", 0),
                  "Pixels, (channels, height, width), with or without a batch of one; or patches "
                  "(num_patches, features) with their positions (num_patches, 2).")
      .def_static(
          "audio", with_beside<AudioInput>, nb::arg("features").noconvert(),
          nb::arg("mask").noconvert().none() = nb::none(), nb::arg("placeholder_id") = -1,
          nb::arg("content") = nb::bytes("", 0),
          "Features, (num_clips, num_bins, num_frames) or without the clips, with a mask of the "
          "frames where the encoder takes one; or samples (num_samples,).")
      .def_static(
          "embeddings",
          [](Array array, const nb::bytes& content) {
            SharedArray rows = share(std::move(array));
            return PreparedInput{
                EmbeddingInput{std::move(rows.view), std::move(rows.owner), content_unit(content)}};
          },
          nb::arg("rows").noconvert(), nb::arg("content") = nb::bytes("", 0),
          "Embeddings, (num_tokens, hidden_size), floats.")
      .def_prop_ro(
          "units", units_of,
          "16 bytes for each token, or those that stand for the content; None where it is not "
          "known.")
      .def("behind", behind, nb::arg("num_tokens"), "Tokens without the first ones.")
      .def_prop_ro(
          "address", [](const PreparedInput& part) { return std::visit(AddressOf{}, part.input); },
          "Where the data lies, to see that nothing was copied.");
}

}  // namespace emm::bindings
