#include <memory>
#include <string>
#include <utility>

#include "base/error.h"
#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "runtime/inputs.h"

namespace emm::bindings {
namespace {

using TokenArray = nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// The input shares the array's memory and holds a reference to it, which may be dropped in the
// midst of native work.
template <typename Kind>
Input from_array(Array array) {
  const TensorView view = to_view(array);
  return Kind{view, std::shared_ptr<Array>(new Array(std::move(array)), DeleteWithGil())};
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
};

}  // namespace

void bind_inputs(nb::module_& module) {
  nb::class_<PromptPart>(
      module, "PromptPart",
      "One part of a prompt, as the core takes it. Arrays are shared, not copied.")
      .def_static(
          "tokens",
          [](const TokenArray& ids) {
            return PromptPart{TokenInput{{ids.data(), ids.data() + ids.size()}}};
          },
          nb::arg("ids").noconvert(), "Token ids, int64 (num_tokens,).")
      .def_static(
          "image",
          [](Array pixels) { return PromptPart{from_array<ImageInput>(std::move(pixels))}; },
          nb::arg("pixels").noconvert(),
          "Pixels, (channels, height, width), with or without a batch of one.")
      .def_static(
          "audio",
          [](Array features) { return PromptPart{from_array<AudioInput>(std::move(features))}; },
          nb::arg("features").noconvert(),
          "Features, (num_clips, num_bins, num_frames) or without the clips.")
      .def_static(
          "embeddings",
          [](Array rows) { return PromptPart{from_array<EmbeddingInput>(std::move(rows))}; },
          nb::arg("rows").noconvert(), "Embeddings, (num_tokens, hidden_size), floats.")
      .def_prop_ro(
          "address", [](const PromptPart& part) { return std::visit(AddressOf{}, part.input); },
          "Where the data lies, to see that nothing was copied.");
}

}  // namespace emm::bindings
