// What a program must promise to count as a transducer, on signatures without a program.
#include <doctest/doctest.h>

#include <functional>
#include <string>

#include "base/error.h"
#include "model/transducer_reader.h"

using namespace emm;

namespace {

constexpr DType kFloat = DType::kFloat32;
constexpr DType kInt = DType::kInt64;

// A TDT with a preprocessor: 8 bins, 4 columns for each frame, two layers of 6, rows of 5.
Signatures tdt() {
  const auto method = [](const std::string& name, std::vector<TensorSpec> in,
                         std::vector<TensorSpec> out) {
    return MethodSpec{name, std::move(in), std::move(out), {}, {}};
  };
  const TensorSpec one = {kInt, {1}};
  const TensorSpec row = {kFloat, {1, 1, 5}};
  const TensorSpec state = {kFloat, {2, 1, 6}};
  Signatures signatures;
  signatures.methods["preprocessor"] =
      method("preprocessor", {{kFloat, {1600}}, one}, {{kFloat, {1, 8, 10}}, one});
  signatures.methods["encoder"] =
      method("encoder", {{kFloat, {1, 8, 400}}, one}, {{kFloat, {1, 100, 5}}, one});
  signatures.methods["decoder_step"] =
      method("decoder_step", {{kInt, {1, 1}}, state, state}, {row, state, state});
  signatures.methods["joint"] = method("joint", {row, row}, {{kInt, {}}, {kInt, {}}});
  signatures.metadata = {
      {"blank_id", int64_t{40}}, {"num_rnn_layers", int64_t{2}}, {"pred_hidden", int64_t{6}}};
  return signatures;
}

std::string refusal(const std::function<void(Signatures&)>& change) {
  Signatures signatures = tdt();
  change(signatures);
  try {
    read_transducer(signatures);
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::kContract);
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("what the methods' shapes say is read from them, the rest has upstream's defaults") {
  const TransducerContract contract = read_transducer(tdt());
  CHECK(contract.blank_id == 40);
  CHECK(contract.durations == std::vector<int64_t>{0, 1, 2, 3, 4});
  CHECK(contract.max_symbols_per_step == 10);
  CHECK(contract.sample_rate == 16000);
  CHECK(contract.subsampling == 4);
  CHECK(contract.frame_seconds() == doctest::Approx(0.04));
  CHECK(contract.num_bins == 8);
  CHECK(contract.max_columns == 400);
  CHECK(contract.max_samples == 1600);
}

namespace {

// As NeMo's export with caches has it: 3 columns of history and 2 frames of 4 columns.
void take_chunks(Signatures& signatures) {
  MethodSpec& encoder = signatures.methods["encoder"];
  const TensorSpec one = {kInt, {1}};
  const TensorSpec channel = {kFloat, {1, 2, 6, 5}};
  const TensorSpec time = {kFloat, {1, 2, 5, 4}};
  encoder.inputs = {{kFloat, {1, 8, 11}}, one, channel, time, one};
  encoder.outputs = {{kFloat, {1, 2, 5}}, one, channel, time, one};
  signatures.metadata["encoder_subsampling_factor"] = int64_t{4};
}

}  // namespace

TEST_CASE("an encoder with caches takes chunks: columns of its frames, the rest is history") {
  CHECK(!read_transducer(tdt()).takes_chunks());
  Signatures signatures = tdt();
  take_chunks(signatures);
  TransducerContract contract = read_transducer(signatures);
  CHECK(contract.takes_chunks());
  CHECK(contract.chunk_columns == 8);
  CHECK(contract.history == 3);
  CHECK(contract.max_columns == 11);
  CHECK(contract.subsampling == 4);
  signatures.metadata["pre_encode_cache_size"] = int64_t{1};  // and looks 2 columns ahead
  contract = read_transducer(signatures);
  CHECK(contract.chunk_columns == 8);
  CHECK(contract.history == 1);
}

TEST_CASE("an encoder that keeps its caches in buffers takes chunks too") {
  Signatures signatures = tdt();
  take_chunks(signatures);
  signatures.methods["encoder"].inputs.resize(2);
  signatures.methods["encoder"].outputs.resize(2);
  const TransducerContract contract = read_transducer(signatures, {StateTensor{}});
  CHECK(contract.chunk_columns == 8);
  CHECK(contract.encoder_state.size() == 1);
}

TEST_CASE("chunks that do not fit are refused with what was expected") {
  const auto refused = [](const std::function<void(Signatures&)>& change) {
    return refusal([&](Signatures& signatures) {
      take_chunks(signatures);
      change(signatures);
    });
  };
  CHECK(refused([](Signatures& s) { s.metadata.erase("encoder_subsampling_factor"); }) ==
        "encoder_subsampling_factor: expected an int, the program has no such method");
  CHECK(refused([](Signatures& s) { s.methods["encoder"].outputs.pop_back(); }) ==
        "encoder: expected 5 inputs and 5 outputs, got 5 and 4");
  CHECK(refused([](Signatures& s) { s.methods["encoder"].outputs[2].shape[2] = 7; }) ==
        "encoder: output 2: expected the cache that goes in, of a fixed shape, for the next chunk: "
        "float32 (1, 2, 6, 5), got float32 (1, 2, 7, 5)");
  CHECK(refused([](Signatures& s) { s.methods["encoder"].outputs[4].dtype = DType::kInt32; }) ==
        "encoder: output 4: expected the cache that goes in, of a fixed shape, for the next chunk: "
        "int64 (1,), got int32 (1,)");
  CHECK(
      refused([](Signatures& s) { s.methods["encoder"].inputs[0].is_dynamic = true; }) ==
      "encoder: expected a fixed number of columns for each chunk, at least 8 for its frames, got "
      "up to 11");
  CHECK(
      refused([](Signatures& s) { s.methods["encoder"].inputs[0].shape[2] = 7; }) ==
      "encoder: expected a fixed number of columns for each chunk, at least 8 for its frames, got "
      "7");
  CHECK(refused([](Signatures& s) { s.metadata["pre_encode_cache_size"] = int64_t{4}; }) ==
        "encoder: expected a fixed number of columns for each chunk, at least 8 for its frames "
        "behind pre_encode_cache_size 4, got 11");
}

TEST_CASE("metadata is followed where there is some") {
  Signatures signatures = tdt();
  signatures.metadata["durations"] = std::vector<int64_t>{0, 2};
  signatures.metadata["max_symbols_per_step"] = int64_t{3};
  signatures.metadata["sample_rate"] = int64_t{8000};
  signatures.metadata["window_stride"] = 0.02;
  signatures.metadata["encoder_subsampling_factor"] = int64_t{8};
  const TransducerContract contract = read_transducer(signatures);
  CHECK(contract.durations == std::vector<int64_t>{0, 2});
  CHECK(contract.max_symbols_per_step == 3);
  CHECK(contract.sample_rate == 8000);
  CHECK(contract.frame_seconds() == doctest::Approx(0.16));
}

TEST_CASE("a joint network of one output is an RNN-T's; the preprocessor may be missing") {
  Signatures signatures = tdt();
  signatures.methods["joint"].outputs.pop_back();
  signatures.methods.erase("preprocessor");
  const TransducerContract contract = read_transducer(signatures);
  CHECK(contract.durations.empty());
  CHECK_FALSE(contract.has_preprocessor());
}

TEST_CASE("missing methods and values are named") {
  CHECK(refusal([](Signatures& s) { s.methods.erase("joint"); }) ==
        "expected the methods encoder, decoder_step and joint of a transducer; the program has: "
        "decoder_step, encoder, preprocessor");
  for (const std::string name : {"blank_id", "num_rnn_layers", "pred_hidden"}) {
    CHECK(refusal([&](Signatures& s) { s.metadata.erase(name); }) ==
          name + ": expected an int, the program has no such method");
  }
  CHECK(refusal([](Signatures& s) { s.metadata["pred_hidden"] = int64_t{0}; }) ==
        "pred_hidden: expected at least 1, got 0");
  CHECK(refusal([](Signatures& s) { s.metadata["blank_id"] = std::string("40"); }) ==
        "blank_id: expected an int or a list of ints");
  CHECK(refusal([](Signatures& s) { s.metadata["window_stride"] = -1.0; }) ==
        "window_stride: expected a positive number");
}

TEST_CASE("shapes and dtypes that do not fit each other are refused with both sides") {
  CHECK(refusal([](Signatures& s) { s.metadata["pred_hidden"] = int64_t{7}; }) ==
        "decoder_step: input 1: expected (2, 1, 7), got (2, 1, 6)");
  CHECK(refusal([](Signatures& s) { s.methods["decoder_step"].outputs[2].shape = {1, 1, 6}; }) ==
        "decoder_step: output 2: expected (2, 1, 6), got (1, 1, 6)");
  CHECK(refusal([](Signatures& s) {
          s.methods["decoder_step"].outputs[1].dtype = DType::kBFloat16;
        }) == "decoder_step: output 1: expected float32 as the state that goes in, got bfloat16");
  CHECK(refusal([](Signatures& s) { s.methods["decoder_step"].inputs[0].shape = {1, 2}; }) ==
        "decoder_step: input 0: expected one value, got int64 (1, 2)");
  CHECK(refusal([](Signatures& s) { s.methods["decoder_step"].outputs.pop_back(); }) ==
        "decoder_step: expected 3 inputs and 3 outputs, got 3 and 2");
  CHECK(refusal([](Signatures& s) { s.methods["joint"].inputs[1].shape = {1, 1, 4}; }) ==
        "joint: input 1: expected (1, 1, 5), got (1, 1, 4)");
  CHECK(refusal([](Signatures& s) { s.methods["joint"].outputs[0] = {kFloat, {1, 1, 41}}; }) ==
        "joint: output 0: expected a tensor of rank 3 and dtype int64 or int32, got float32 "
        "(1, 1, 41)");
  CHECK(refusal([](Signatures& s) { s.methods["encoder"].inputs[0].shape = {2, 8, 400}; }) ==
        "encoder: input 0: expected one clip for each call, got (2, 8, 400)");
  CHECK(refusal([](Signatures& s) { s.methods["encoder"].inputs.pop_back(); }) ==
        "encoder: expected 2 inputs and 2 outputs, got 1 and 2");
  CHECK(refusal([](Signatures& s) { s.methods["preprocessor"].outputs[0].shape = {1, 9, 10}; }) ==
        "preprocessor: expected features of 8 bins as the encoder takes, from at least one "
        "sample, got 9 from 1600");
}

TEST_CASE("durations that make no sense are refused") {
  CHECK(refusal([](Signatures& s) { s.metadata["durations"] = std::vector<int64_t>{1, -1}; }) ==
        "durations: expected no negative ones, got -1");
  CHECK(refusal([](Signatures& s) {
          s.metadata["durations"] = std::vector<int64_t>{0, 1};
          s.methods["joint"].outputs.pop_back();
        }) ==
        "joint: expected a duration as output 1, because the program has a list of durations");
}
