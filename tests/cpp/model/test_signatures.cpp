#include <doctest/doctest.h>

#include <string>

#include "model/signatures.h"

using namespace emm;

namespace {

ProgramValue number(int64_t value) {
  ProgramValue found;
  found.kind = ValueKind::kInt;
  found.integer = value;
  return found;
}

ProgramValue real(double value) {
  ProgramValue found;
  found.kind = ValueKind::kDouble;
  found.real = value;
  return found;
}

ProgramMethod constant(const std::string& name, std::vector<ProgramValue> values) {
  ProgramMethod method;
  method.name = name;
  for (size_t i = 0; i < values.size(); ++i) method.outputs.push_back(static_cast<int32_t>(i));
  method.values = std::move(values);
  return method;
}

ProgramMethod with_input(const std::string& name) {
  ProgramMethod method = constant(name, {number(0)});
  method.inputs = {0};
  return method;
}

ProgramInfo program(std::vector<ProgramMethod> methods) {
  ProgramInfo info;
  info.methods = std::move(methods);
  return info;
}

}  // namespace

TEST_CASE("constant methods give a value or a list of numbers of one kind") {
  ProgramValue flag;
  flag.kind = ValueKind::kBool;
  flag.integer = 1;
  ProgramValue text;
  text.kind = ValueKind::kString;
  text.text = "llama";
  ProgramMethod lost = constant("lost", {number(1)});
  lost.outputs = {7};
  const Signatures found = read_signatures(
      program({constant("one", {number(3)}), constant("many", {number(1), number(2)}),
               constant("reals", {real(0.5), real(1.5)}), constant("flag", {flag}),
               constant("text", {text}), constant("mixed", {number(1), real(2)}),
               constant("nothing", {}), lost, with_input("forward")}));

  CHECK(std::get<int64_t>(found.metadata.at("one")) == 3);
  CHECK(std::get<std::vector<int64_t>>(found.metadata.at("many")) == std::vector<int64_t>{1, 2});
  CHECK(std::get<std::vector<double>>(found.metadata.at("reals")) == std::vector<double>{0.5, 1.5});
  CHECK(std::get<bool>(found.metadata.at("flag")));
  CHECK(std::get<std::string>(found.metadata.at("text")) == "llama");
  CHECK(found.metadata.size() == 5);
  CHECK(found.methods.size() == 1);
}

TEST_CASE("a tensor keeps dtype, bounds and place; another value has none") {
  ProgramMethod method = with_input("forward");
  ProgramValue value;
  value.kind = ValueKind::kTensor;
  method.values.push_back(value);
  ProgramTensor tensor;
  tensor.scalar_type = 15;  // bfloat16
  tensor.sizes = {1, 7};
  tensor.is_dynamic = tensor.is_planned = true;
  method.tensors = {tensor};
  method.inputs = {0, 1};
  method.arena_bytes = {0, 48, 16};

  const MethodSpec spec = read_methods(program({method})).at("forward");

  CHECK(spec.inputs[0].dtype == DType::kOther);
  CHECK(spec.inputs[1].dtype == DType::kBFloat16);
  CHECK(spec.inputs[1].shape == Shape{1, 7});
  CHECK(spec.inputs[1].is_dynamic);
  CHECK(spec.inputs[1].is_planned);
  CHECK(spec.arena_bytes == std::vector<int64_t>{48, 16});  // entry 0 of the file is unused
}

TEST_CASE("the methods tell what a program is") {
  const auto kind = [](std::initializer_list<const char*> names) {
    ProgramInfo info;
    for (const char* name : names) info.methods.push_back(with_input(name));
    return model_kind(read_signatures(info));
  };
  CHECK(kind({"forward"}) == ModelKind::kText);
  CHECK(kind({"forward", "token_embedding", "text_decoder"}) == ModelKind::kMultimodal);
  CHECK(kind({"encoder", "text_decoder"}) == ModelKind::kSpeech);
  CHECK(kind({"encoder", "decoder_step", "joint", "preprocessor"}) == ModelKind::kTransducer);
  CHECK(kind({"encoder"}) == ModelKind::kOther);
  CHECK(kind({}) == ModelKind::kOther);
}

namespace {

TensorSpec of(DType dtype, Shape shape) { return {dtype, std::move(shape), false, false}; }

MethodSpec method_of(std::vector<TensorSpec> inputs, std::vector<TensorSpec> outputs = {}) {
  return {"method", std::move(inputs), std::move(outputs), {}, {}};
}

}  // namespace

TEST_CASE("a decoder's inputs are known by dtype and rank, in any order") {
  const TensorSpec ids = of(DType::kInt64, {1, 9});
  const TensorSpec rows = of(DType::kFloat32, {1, 9, 4});
  const TensorSpec position = of(DType::kInt64, {1});
  const DecoderInputs joint = decoder_inputs(method_of({ids, position, rows}));
  CHECK(joint.are_joint());
  CHECK(joint.tokens == 0);
  CHECK(joint.position == 1);
  CHECK(joint.embeddings == 2);
  const DecoderInputs other =
      decoder_inputs(method_of({rows, of(DType::kInt32, {1, 9}), position}));
  CHECK(other.are_joint());
  CHECK(other.tokens == 1);
  CHECK(other.position == 2);
  CHECK_FALSE(decoder_inputs(method_of({ids, position})).are_joint());
  CHECK(decoder_inputs(method_of({rows, position})).embeddings == 0);
  CHECK(decoder_inputs(method_of({ids})).position == -1);
  // What a speech model's encoder has heard is longer than the tokens.
  CHECK_FALSE(
      decoder_inputs(method_of({ids, of(DType::kFloat32, {1, 1500, 4}), position})).are_joint());
  CHECK(position_style(method_of({ids, of(DType::kInt64, {9}), rows})) == PositionStyle::kRange);
}

TEST_CASE("an encoder's inputs and outputs are known by rank and dtype, in any order") {
  const TensorSpec values = of(DType::kFloat32, {1, 9, 4});
  const TensorSpec grid = of(DType::kInt64, {1, 9, 2});
  const TensorSpec mask = of(DType::kBool, {1, 9});
  const TensorSpec rows = of(DType::kFloat32, {1, 3, 8});
  const EncoderPlaces plain =
      encoder_places(method_of({of(DType::kFloat32, {1, 3, 8, 8})}, {rows}));
  CHECK(plain.values == 0);
  CHECK(plain.mask == -1);
  CHECK(plain.positions == -1);
  CHECK(plain.rows_mask == -1);
  const EncoderPlaces masked = encoder_places(method_of({mask, values}, {mask, rows}));
  CHECK(masked.values == 1);
  CHECK(masked.mask == 0);
  CHECK(masked.rows == 1);
  CHECK(masked.rows_mask == 0);
  for (const bool is_first : {true, false}) {
    const EncoderPlaces placed = encoder_places(is_first ? method_of({grid, values}, {rows})
                                                         : method_of({values, grid}, {rows}));
    CHECK(placed.positions == (is_first ? 0 : 1));
    CHECK(placed.values == (is_first ? 1 : 0));
    CHECK(placed.mask == -1);
  }
}
