// What a program with the methods encoder and text_decoder promises, by what its encoder takes.
#include <doctest/doctest.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "method_builder.h"
#include "model/contract_reader.h"

using namespace emm;

namespace {

constexpr int32_t kSource = 40;
constexpr int32_t kHidden = 16;
constexpr int32_t kVocabulary = 52;

using Change = std::function<void(ProgramMethod& encoder, ProgramMethod& decoder)>;

ProgramMethod constant(const std::string& name, int64_t number) {
  Builder b;
  b.method().name = name;
  b.method().outputs = {b.integer(number)};
  return b.method();
}

// As optimum-executorch exports T5.
ProgramInfo t5(const Change& change = [](ProgramMethod&, ProgramMethod&) {}) {
  Builder encoder;
  encoder.input(encoder.tensor({1, kSource}, kLong));
  encoder.method().outputs = {encoder.tensor({1, kSource, kHidden})};
  encoder.method().name = "encoder";
  for (ProgramTensor& tensor : encoder.method().tensors) tensor.is_dynamic = true;
  Builder decoder;
  decoder.input(decoder.tensor({1, 1}, kLong));
  decoder.input(decoder.tensor({1, kSource, kHidden}));
  decoder.input(decoder.tensor({1}, kLong));
  decoder.method().outputs = {decoder.tensor({1, 1, kVocabulary})};
  decoder.method().name = "text_decoder";
  change(encoder.method(), decoder.method());
  ProgramInfo program;
  program.methods = {encoder.method(), decoder.method(), constant("get_max_seq_len", 24)};
  return program;
}

std::string refusal(const ProgramInfo& program) {
  try {
    read_contract(program);
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::kContract);
    return error.what();
  }
  FAIL("not refused");
  return "";
}

bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("an encoder of token ids makes a text-to-text model") {
  const Contract contract = read_contract(t5());
  CHECK(contract.kind == ModelKind::kSeq2Seq);
  CHECK(contract.is_encoder_decoder());
  CHECK(contract.capacity == 24);
  CHECK(contract.max_chunk == 1);
  CHECK(contract.vocab_size == kVocabulary);
  CHECK(contract.choices == std::vector<std::string>{"text_decoder"});
  CHECK(contract.text_encoder() == contract.find("encoder"));
  CHECK(contract.audio_encoder() == nullptr);
}

TEST_CASE("an encoder of features makes a speech model") {
  const Contract contract = read_contract(t5([](ProgramMethod& encoder, ProgramMethod&) {
    encoder.tensors[0].sizes = {1, 8, 10};
    encoder.tensors[0].scalar_type = kFloat;
  }));
  CHECK(contract.kind == ModelKind::kSpeech);
  CHECK(contract.text_encoder() == nullptr);
  CHECK(contract.audio_encoder() == contract.find("encoder"));
}

TEST_CASE("a text cannot be filled up to a fixed length") {
  const std::string said = refusal(
      t5([](ProgramMethod& encoder, ProgramMethod&) { encoder.tensors[0].is_dynamic = false; }));
  CHECK(has(said, "encoder: input 0: expected token ids of a dynamic length"));
}

TEST_CASE("the decoder takes what the encoder gives") {
  const std::string said = refusal(t5([](ProgramMethod&, ProgramMethod& decoder) {
    decoder.tensors[1].sizes = {1, kSource, kHidden + 1};
  }));
  CHECK(has(said, "text_decoder: input 1: expected output 0 of encoder, float32 (1, 40, 16)"));
  CHECK(has(said, "got float32 (1, 40, 17)"));
  const std::string masked = refusal(t5([](ProgramMethod& encoder, ProgramMethod&) {
    encoder.inputs.push_back(encoder.inputs[0]);  // an attention mask
  }));
  CHECK(has(masked, "encoder: expected one input, got 2"));
}
