#include "et/et_encoder.h"

#include <cstring>

#include "base/error.h"
#include "et/outputs.h"

namespace emm {

std::vector<TensorView> EtEncoder::run(EtProgram& program, const MethodSpec* encoder,
                                       const std::string& what, const MediaView& input) {
  if (encoder == nullptr) refuse_media(what);
  const EncoderPlaces places = encoder_places(*encoder);
  if (places.mask >= 0 || places.positions >= 0) {
    return program.run(encoder->name, call_.inputs(*encoder, input, what), ErrorCode::kInput,
                       copied_bytes_);
  }
  const TensorSpec& wanted = encoder->inputs[0];
  TensorView given = media_.take(input.values, wanted.dtype, what, what == "image");
  // The batch dimension may be left out or given; the program decides whether there is one.
  if (given.shape.size() + 1 == wanted.shape.size()) given.shape.insert(given.shape.begin(), 1);
  if (given.shape.size() == wanted.shape.size() + 1 && given.shape[0] == 1)
    given.shape.erase(given.shape.begin());
  if (!wanted.may_be(given.shape))
    refuse_media(what, encoder->name, {nullptr, wanted.dtype, wanted.shape}, given);
  return program.run(encoder->name, {given}, ErrorCode::kInput, copied_bytes_);
}

TensorView EtEncoder::transform(EtProgram& program, const MethodSpec& method,
                                const TensorView& samples) {
  const TensorSpec& wanted = method.inputs[0];
  const int64_t most = wanted.shape.back();
  if (samples.size() < 1 || samples.size() > most) {
    throw Error(ErrorCode::kInput, "audio: " + method.name + " takes 1 to " + std::to_string(most) +
                                       " samples, got " + std::to_string(samples.size()));
  }
  TensorView given = media_.take(samples, wanted.dtype, "audio", false);
  std::vector<uint8_t> filled;
  const int64_t length = wanted.is_dynamic ? samples.size() : most;
  if (length > samples.size()) {
    filled.assign(static_cast<size_t>(length) * dtype_size(wanted.dtype), 0);
    std::memcpy(filled.data(), given.data, given.size_bytes());
    if (given.data == samples.data) copied_bytes_ += static_cast<int64_t>(samples.size_bytes());
    given.data = filled.data();
  }
  given.shape.assign(wanted.shape.size(), 1);
  given.shape.back() = length;
  TensorView frames =
      as_rows(program.run(method.name, {given}, ErrorCode::kInput, copied_bytes_)[0]);
  // Silence that was put behind the samples makes frames too.
  frames.shape[0] = (frames.shape[0] * samples.size() + length - 1) / length;
  if (frames.shape[0] < 1)
    throw Error(ErrorCode::kInput, "audio: expected a longer clip, got " +
                                       std::to_string(samples.size()) + " samples");
  return frames;
}

}  // namespace emm
