#include "model/encoder_checks.h"

#include <algorithm>
#include <string>

#include "model/contract_checks.h"

namespace emm {
namespace {

constexpr DTypes kMasks = {DType::kBool,  DType::kUInt8,   DType::kInt8,    DType::kInt32,
                           DType::kInt64, DType::kFloat32, DType::kFloat16, DType::kBFloat16};

// A mask says which frames or rows count, one element for each, with or without the batch.
void check_mask(const MethodSpec& encoder, Side side, int place, int64_t length) {
  const auto index = static_cast<size_t>(place);
  const TensorSpec& spec = (side == Side::kInput ? encoder.inputs : encoder.outputs)[index];
  expect_tensor(encoder, side, index, std::clamp<size_t>(spec.shape.size(), 1, 2), kMasks);
  if (num_elements(spec.shape) == length) return;
  refuse_contract(place_name(encoder, side, index) + ": expected a mask of " +
                  std::to_string(length) + " elements, got " +
                  TensorView{nullptr, spec.dtype, spec.shape}.describe());
}

void check_encoder(const Contract& contract, const MethodSpec* encoder) {
  if (encoder == nullptr) return;
  const std::string& name = encoder->name;
  const EncoderPlaces places = encoder_places(*encoder);
  if (encoder->inputs.size() > 2 || encoder->outputs.empty() || encoder->outputs.size() > 2) {
    refuse_contract(name +
                    ": expected pixels or features, and a mask or position ids beside them; "
                    "one output, and a mask beside it; got " +
                    std::to_string(encoder->inputs.size()) + " inputs and " +
                    std::to_string(encoder->outputs.size()) + " outputs");
  }
  const TensorSpec& values = encoder->inputs[static_cast<size_t>(places.values)];
  const auto values_place = static_cast<size_t>(places.values);
  if (places.positions >= 0) {
    expect_tensor(*encoder, Side::kInput, values_place, 3, kFloats);
    const TensorSpec& positions = encoder->inputs[static_cast<size_t>(places.positions)];
    if (positions.shape[1] != values.shape[1]) {
      refuse_contract(name + ": expected position ids of " + std::to_string(values.shape[1]) +
                      " patches, got " + std::to_string(positions.shape[1]));
    }
  } else if (places.mask >= 0) {
    expect_tensor(*encoder, Side::kInput, values_place, 3, kFloats);
    check_mask(*encoder, Side::kInput, places.mask, values.shape[1]);
  }
  // Leading dimensions (batch, images, tiles) are stacked, and floats converted.
  const auto rows_place = static_cast<size_t>(places.rows);
  const Shape& output = encoder->outputs[rows_place].shape;
  expect_tensor(*encoder, Side::kOutput, rows_place, std::clamp<size_t>(output.size(), 2, 4),
                kFloats);
  const int64_t hidden = output.back();
  if (places.rows_mask >= 0)
    check_mask(*encoder, Side::kOutput, places.rows_mask,
               num_elements(output) / std::max<int64_t>(hidden, 1));
  if (hidden != contract.hidden_size) {
    refuse_contract(name + ": expected embeddings of " + std::to_string(contract.hidden_size) +
                    " features as " + contract.decoder_name + " takes, got " +
                    std::to_string(hidden));
  }
}

// Samples in, frames (frames, features) out, which audio_encoder takes.
void check_audio_transform(const Contract& contract) {
  const MethodSpec* transform = contract.audio_transform();
  const MethodSpec* encoder = contract.audio_encoder();
  if (transform == nullptr || encoder == nullptr) return;
  if (transform->inputs.size() != 1 || transform->outputs.size() != 1) {
    refuse_contract(transform->name + ": expected one input and one output, got " +
                    std::to_string(transform->inputs.size()) + " and " +
                    std::to_string(transform->outputs.size()));
  }
  const size_t rank = transform->inputs[0].shape.size();
  expect_tensor(*transform, Side::kInput, 0, std::clamp<size_t>(rank, 1, 2), kFloats);
  const Shape& made = transform->outputs[0].shape;
  expect_tensor(*transform, Side::kOutput, 0, std::clamp<size_t>(made.size(), 2, 3), kFloats);
  const int64_t wanted =
      encoder->inputs[static_cast<size_t>(encoder_places(*encoder).values)].shape.back();
  if (made.back() != wanted) {
    refuse_contract(transform->name + ": expected frames of " + std::to_string(wanted) +
                    " features as " + encoder->name + " takes, got " + std::to_string(made.back()));
  }
}

// A text cannot be filled up: nothing would tell the decoder which rows count.
void check_text_encoder(const MethodSpec& encoder) {
  const TensorSpec& ids = expect_tensor(encoder, Side::kInput, 0, 2, kIds);
  if (ids.is_dynamic) return;
  refuse_contract("encoder: input 0: expected token ids of a dynamic length, got the fixed shape " +
                  shape_string(ids.shape));
}

}  // namespace

void check_media_encoders(const Contract& contract) {
  check_encoder(contract, contract.image_encoder());
  check_encoder(contract, contract.audio_encoder());
  check_audio_transform(contract);
}

void check_encoder_decoder(const Contract& contract) {
  const MethodSpec& encoder = contract.methods.at("encoder");
  const MethodSpec& decoder = contract.decoder();
  if (encoder.inputs.size() != 1)
    refuse_contract("encoder: expected one input, got " + std::to_string(encoder.inputs.size()));
  if (contract.kind == ModelKind::kSeq2Seq)
    check_text_encoder(encoder);
  else
    expect_tensor(encoder, Side::kInput, 0, 3, kFloats);
  expect_tensor(decoder, Side::kInput, 0, 2, kIds);
  if (encoder.outputs.empty() || decoder.inputs.size() != encoder.outputs.size() + 2) {
    refuse_contract("text_decoder: expected tokens, the outputs of encoder (" +
                    std::to_string(encoder.outputs.size()) + ") and a position, got " +
                    std::to_string(decoder.inputs.size()) + " inputs");
  }
  for (size_t i = 0; i < encoder.outputs.size(); ++i) {
    const TensorSpec& given = encoder.outputs[i];
    const TensorSpec& taken = decoder.inputs[i + 1];
    if (given.dtype == taken.dtype && given.dtype != DType::kOther && given.shape == taken.shape)
      continue;
    refuse_contract("text_decoder: input " + std::to_string(i + 1) + ": expected output " +
                    std::to_string(i) + " of encoder, " + dtype_name(given.dtype) + " " +
                    shape_string(given.shape) + ", got " + dtype_name(taken.dtype) + " " +
                    shape_string(taken.shape));
  }
}

}  // namespace emm
