// What encoders with masks and positions are called with, and which rows of theirs count.
#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "model/encoder_call.h"

using namespace emm;

namespace {

TensorSpec spec(DType dtype, Shape shape, bool is_dynamic = false) {
  return {dtype, std::move(shape), false, is_dynamic};
}

MethodSpec audio_encoder(int64_t frames, bool is_dynamic, DType mask = DType::kBool) {
  return {"audio_encoder",
          {spec(DType::kFloat32, {1, frames, 2}, is_dynamic), spec(mask, {1, frames}, is_dynamic)},
          {spec(DType::kFloat32, {1, frames / 2, 3}), spec(DType::kBool, {1, frames / 2})},
          {},
          {}};
}

MethodSpec image_encoder(int64_t patches, bool is_dynamic, bool rows_follow) {
  return {"vision_encoder",
          {spec(DType::kInt64, {1, patches, 2}, is_dynamic),
           spec(DType::kFloat32, {1, patches, 2}, is_dynamic)},
          {spec(DType::kFloat32, {1, patches, 3}, rows_follow)},
          {},
          {}};
}

template <typename Number>
std::vector<Number> numbers(const TensorView& view) {
  const auto* first = static_cast<const Number*>(view.data);
  return {first, first + view.size()};
}

MediaView frames(const std::vector<float>& values, const std::vector<uint8_t>* mask = nullptr) {
  MediaView view{{values.data(), DType::kFloat32, {static_cast<int64_t>(values.size()) / 2, 2}},
                 {}};
  if (mask != nullptr)
    view.beside = {mask->data(), DType::kUInt8, {static_cast<int64_t>(mask->size())}};
  return view;
}

}  // namespace

TEST_CASE("frames that are missing are filled with zeros and masked") {
  EncoderCall call;
  const std::vector<float> values = {1, 2, 3, 4, 5, 6};
  const std::vector<uint8_t> mask = {1, 0, 1};
  auto inputs = call.inputs(audio_encoder(4, false), frames(values, &mask), "audio");
  REQUIRE(inputs.size() == 2);
  CHECK(inputs[0].shape == Shape{1, 4, 2});
  CHECK(numbers<float>(inputs[0]) == std::vector<float>{1, 2, 3, 4, 5, 6, 0, 0});
  CHECK(inputs[1].shape == Shape{1, 4});
  CHECK(numbers<uint8_t>(inputs[1]) == std::vector<uint8_t>{1, 0, 1, 0});
  CHECK(call.copied_bytes() == 24);

  inputs = call.inputs(audio_encoder(3, false, DType::kFloat32), frames(values), "audio");
  CHECK(inputs[0].data == values.data());  // nothing to fill: by pointer
  CHECK(numbers<float>(inputs[1]) == std::vector<float>{1, 1, 1});
  CHECK(call.copied_bytes() == 24);
}

TEST_CASE("a dynamic encoder gets as many frames as its blocks take") {
  // Upstream's Gemma 4 example: 48 k - 25 frames, from 71 to 2999.
  const TensorSpec gemma = spec(DType::kFloat32, {1, 2999, 128}, true);
  CHECK(padded_length(gemma, 1) == 71);
  CHECK(padded_length(gemma, 71) == 71);
  CHECK(padded_length(gemma, 72) == 119);
  CHECK(padded_length(gemma, 99) == 119);
  CHECK(padded_length(gemma, 2999) == 2999);
  CHECK(padded_length(gemma, 3000) == 0);
  CHECK(padded_length(spec(DType::kFloat32, {1, 3000, 80}, true), 99) == 99);
  CHECK(padded_length(spec(DType::kFloat32, {1, 3000, 80}, false), 99) == 3000);
}

TEST_CASE("patches keep their number where the rows follow it, and are filled up where not") {
  EncoderCall call;
  const std::vector<float> values = {1, 2, 3, 4};
  const std::vector<int64_t> places = {0, 0, 1, 0};
  const MediaView given{{values.data(), DType::kFloat32, {2, 2}},
                        {places.data(), DType::kInt64, {2, 2}}};
  auto inputs = call.inputs(image_encoder(3, true, true), given, "image");
  CHECK(inputs[0].shape == Shape{1, 2, 2});
  CHECK(numbers<int64_t>(inputs[0]) == places);
  CHECK(inputs[1].data == values.data());

  inputs = call.inputs(image_encoder(3, true, false), given, "image");
  CHECK(numbers<int64_t>(inputs[0]) == std::vector<int64_t>{0, 0, 1, 0, -1, -1});
  CHECK(numbers<float>(inputs[1]) == std::vector<float>{1, 2, 3, 4, 0, 0});
}

TEST_CASE("what does not fit is refused with what was expected") {
  EncoderCall call;
  const std::vector<float> values = {1, 2, 3, 4};
  const std::vector<uint8_t> mask = {1, 1};
  const std::vector<uint8_t> none = {0, 0};
  const std::vector<uint8_t> longer = {1, 1, 1};
  const auto encoder = audio_encoder(4, false);
  CHECK_NOTHROW(call.inputs(encoder, frames(values, &mask), "audio"));
  CHECK_THROWS_AS(call.inputs(encoder, frames(values, &none), "audio"), Error);
  CHECK_THROWS_AS(call.inputs(encoder, frames(values, &longer), "audio"), Error);
  CHECK_THROWS_AS(call.inputs(audio_encoder(1, false), frames(values), "audio"), Error);
  MediaView wide = frames(values);
  wide.values.shape = {1, 4};
  CHECK_THROWS_AS(call.inputs(encoder, wide, "audio"), Error);
  wide.values.shape = {4};
  CHECK_THROWS_AS(call.inputs(encoder, wide, "audio"), Error);
  CHECK_THROWS_AS(call.inputs(image_encoder(2, false, false), frames(values), "image"), Error);
}

TEST_CASE("only rows that count come back") {
  EncoderCall call;
  const auto encoder = audio_encoder(8, false);
  const std::vector<float> values(16, 1.0f);
  call.inputs(encoder, frames(values), "audio");
  const std::vector<float> rows = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  const auto kept = [&](const std::vector<uint8_t>& mask) {
    const TensorView view{rows.data(), DType::kFloat32, {1, 4, 3}};
    return call.rows(encoder, {view, {mask.data(), DType::kBool, {1, 4}}});
  };
  CHECK(kept({1, 1, 1, 1}).data == rows.data());
  CHECK(kept({1, 1, 0, 0}).shape == Shape{2, 3});
  CHECK(kept({1, 1, 0, 0}).data == rows.data());
  const TensorView scattered = kept({0, 1, 0, 1});
  CHECK(scattered.shape == Shape{2, 3});
  CHECK(numbers<float>(scattered) == std::vector<float>{3, 4, 5, 9, 10, 11});
  CHECK(kept({0, 0, 0, 0}).shape == Shape{0, 3});
  const TensorView view{rows.data(), DType::kFloat32, {1, 4, 3}};
  const std::vector<uint8_t> short_mask = {1, 1};
  CHECK_THROWS_AS(call.rows(encoder, {view, {short_mask.data(), DType::kBool, {2}}}), Error);
}

TEST_CASE("without a mask of rows they are as many of all as frames count of all frames") {
  EncoderCall call;
  MethodSpec encoder = audio_encoder(8, false);
  encoder.outputs.pop_back();
  const std::vector<float> values(6, 1.0f);
  call.inputs(encoder, frames(values), "audio");
  const std::vector<float> rows(12, 1.0f);
  CHECK(call.rows(encoder, {{rows.data(), DType::kFloat32, {1, 4, 3}}}).shape == Shape{2, 3});
}
