#include "model/transducer_reader.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "model/cache_kind.h"
#include "model/contract_checks.h"
#include "model/signatures.h"

namespace emm {
namespace {

// Of NVIDIA's published models; their exporter does not write them.
const std::vector<int64_t> kUsualDurations = {0, 1, 2, 3, 4};

const MethodSpec& required_method(const Signatures& signatures, const std::string& name) {
  const MethodSpec* method = signatures.find(name);
  if (method != nullptr) return *method;
  std::string names;
  for (const auto& [other, spec] : signatures.methods) names += (names.empty() ? "" : ", ") + other;
  refuse_contract(
      "expected the methods encoder, decoder_step and joint of a transducer; the program has: " +
      (names.empty() ? "none" : names));
}

int64_t required_int(const Signatures& signatures, const std::string& name, int64_t least) {
  const auto value = one_int(signatures, name);
  if (!value) refuse_contract(name + ": expected an int, the program has no such method");
  if (*value < least)
    refuse_contract(name + ": expected at least " + std::to_string(least) + ", got " +
                    std::to_string(*value));
  return *value;
}

int64_t positive_int(const Signatures& signatures, const std::string& name, int64_t otherwise) {
  return signatures.metadata.count(name) == 0 ? otherwise : required_int(signatures, name, 1);
}

double positive_number(const Signatures& signatures, const std::string& name, double otherwise) {
  const auto found = signatures.metadata.find(name);
  if (found == signatures.metadata.end()) return otherwise;
  const auto* value = std::get_if<double>(&found->second);
  if (value == nullptr || !std::isfinite(*value) || *value <= 0.0)
    refuse_contract(name + ": expected a positive number");
  return *value;
}

void expect_counts(const MethodSpec& method, size_t inputs, size_t least_outputs,
                   size_t most_outputs) {
  const size_t outputs = method.outputs.size();
  if (method.inputs.size() == inputs && outputs >= least_outputs && outputs <= most_outputs) return;
  refuse_contract(method.name + ": expected " + std::to_string(inputs) + " inputs and " +
                  std::to_string(least_outputs) +
                  (most_outputs > least_outputs ? " or " + std::to_string(most_outputs) : "") +
                  " outputs, got " + std::to_string(method.inputs.size()) + " and " +
                  std::to_string(outputs));
}

// One id or length, of any rank.
void expect_scalar(const MethodSpec& method, Side side, size_t index) {
  const auto& specs = side == Side::kInput ? method.inputs : method.outputs;
  const size_t rank = index < specs.size() ? specs[index].shape.size() : 0;
  const TensorSpec& spec = expect_tensor(method, side, index, rank, kIds);
  if (num_elements(spec.shape) != 1) {
    refuse_contract(place_name(method, side, index) + ": expected one value, got " +
                    dtype_name(spec.dtype) + " " + shape_string(spec.shape));
  }
}

void expect_shape(const MethodSpec& method, Side side, size_t index, const Shape& shape) {
  const TensorSpec& spec = expect_tensor(method, side, index, shape.size(), kFloats);
  if (spec.shape != shape) {
    refuse_contract(place_name(method, side, index) + ": expected " + shape_string(shape) +
                    ", got " + shape_string(spec.shape));
  }
}

void expect_one_clip(const MethodSpec& method, Side side) {
  const TensorSpec& spec = expect_tensor(method, side, 0, 3, kFloats);
  if (spec.shape[0] == 1 && num_elements(spec.shape) > 0) return;
  refuse_contract(place_name(method, side, 0) + ": expected one clip for each call, got " +
                  shape_string(spec.shape));
}

// NeMo's cache-aware export: what goes in behind the length comes out, for the next call, in the
// same place.
void expect_caches(const MethodSpec& encoder) {
  for (size_t i = 2; i < encoder.inputs.size(); ++i) {
    const TensorSpec& cache = encoder.inputs[i];
    const TensorSpec& next = encoder.outputs[i];
    if (cache.dtype != DType::kOther && cache.dtype == next.dtype && cache.shape == next.shape &&
        !cache.is_dynamic && !next.is_dynamic)
      continue;
    refuse_contract(place_name(encoder, Side::kOutput, i) +
                    ": expected the cache that goes in, of a fixed shape, for the next chunk: " +
                    dtype_name(cache.dtype) + " " + shape_string(cache.shape) + ", got " +
                    dtype_name(next.dtype) + " " + shape_string(next.shape));
  }
}

void read_chunks(TransducerContract& contract, const MethodSpec& encoder) {
  contract.subsampling = required_int(contract, "encoder_subsampling_factor", 1);
  const int64_t window = contract.max_columns;
  const int64_t chunk = encoder.outputs[0].shape[1] * contract.subsampling;
  const auto history = one_int(contract, "pre_encode_cache_size");
  contract.chunk_columns = chunk;
  contract.history = history.value_or(window - chunk);
  if (encoder.inputs[0].is_dynamic || contract.history < 0 || contract.history + chunk > window) {
    refuse_contract("encoder: expected a fixed number of columns for each chunk, at least " +
                    std::to_string(chunk) + " for its frames" +
                    (history ? " behind pre_encode_cache_size " + std::to_string(*history) : "") +
                    ", got " + (encoder.inputs[0].is_dynamic ? "up to " : "") +
                    std::to_string(window));
  }
}

void read_encoder(TransducerContract& contract) {
  const MethodSpec& encoder = required_method(contract, "encoder");
  const size_t num_values = std::max<size_t>(2, encoder.inputs.size());  // with caches
  expect_counts(encoder, num_values, num_values, num_values);
  expect_caches(encoder);
  expect_one_clip(encoder, Side::kInput);
  expect_scalar(encoder, Side::kInput, 1);
  expect_one_clip(encoder, Side::kOutput);
  expect_scalar(encoder, Side::kOutput, 1);
  contract.num_bins = encoder.inputs[0].shape[1];
  contract.max_columns = encoder.inputs[0].shape[2];
  if (num_values > 2 || !contract.encoder_state.empty()) return read_chunks(contract, encoder);
  const double columns_per_frame =
      static_cast<double>(contract.max_columns) / static_cast<double>(encoder.outputs[0].shape[1]);
  contract.subsampling = positive_int(contract, "encoder_subsampling_factor",
                                      std::max<int64_t>(1, std::llround(columns_per_frame)));
}

void check_predictor(const TransducerContract& contract) {
  const MethodSpec& predictor = required_method(contract, "decoder_step");
  expect_counts(predictor, 3, 3, 3);
  expect_scalar(predictor, Side::kInput, 0);
  const Shape state = {required_int(contract, "num_rnn_layers", 1), 1,
                       required_int(contract, "pred_hidden", 1)};
  for (const size_t i : {1, 2}) {
    expect_shape(predictor, Side::kInput, i, state);
    expect_shape(predictor, Side::kOutput, i, state);
    if (predictor.inputs[i].dtype != predictor.outputs[i].dtype) {
      refuse_contract(place_name(predictor, Side::kOutput, i) + ": expected " +
                      dtype_name(predictor.inputs[i].dtype) + " as the state that goes in, got " +
                      dtype_name(predictor.outputs[i].dtype));
    }
  }
}

void read_joint(TransducerContract& contract) {
  const MethodSpec& joint = required_method(contract, "joint");
  expect_counts(joint, 2, 1, 2);
  const Shape row = {1, 1, contract.methods.at("encoder").outputs[0].shape[2]};
  expect_shape(joint, Side::kInput, 0, row);
  expect_shape(joint, Side::kInput, 1, row);
  expect_shape(contract.methods.at("decoder_step"), Side::kOutput, 0, row);
  for (size_t i = 0; i < joint.outputs.size(); ++i) expect_scalar(joint, Side::kOutput, i);

  const bool has_durations = joint.outputs.size() == 2;
  contract.durations = int_list(contract, "durations");
  if (has_durations && contract.durations.empty()) contract.durations = kUsualDurations;
  if (!has_durations && !contract.durations.empty())
    refuse_contract(
        "joint: expected a duration as output 1, because the program has a list of durations");
  for (const int64_t duration : contract.durations) {
    if (duration < 0)
      refuse_contract("durations: expected no negative ones, got " + std::to_string(duration));
  }
}

void read_preprocessor(TransducerContract& contract) {
  const MethodSpec* method = contract.find("preprocessor");
  if (method == nullptr) return;
  expect_counts(*method, 2, 2, 2);
  contract.max_samples = expect_tensor(*method, Side::kInput, 0, 1, kFloats).shape[0];
  expect_scalar(*method, Side::kInput, 1);
  expect_one_clip(*method, Side::kOutput);
  expect_scalar(*method, Side::kOutput, 1);
  const int64_t num_bins = method->outputs[0].shape[1];
  if (contract.max_samples < 1 || num_bins != contract.num_bins) {
    refuse_contract("preprocessor: expected features of " + std::to_string(contract.num_bins) +
                    " bins as the encoder takes, from at least one sample, got " +
                    std::to_string(num_bins) + " from " + std::to_string(contract.max_samples));
  }
}

}  // namespace

TransducerContract read_transducer(Signatures signatures, std::vector<StateTensor> encoder_state) {
  TransducerContract contract;
  static_cast<Signatures&>(contract) = std::move(signatures);
  contract.encoder_state = std::move(encoder_state);
  contract.blank_id = required_int(contract, "blank_id", 0);
  contract.max_symbols_per_step =
      positive_int(contract, "max_symbols_per_step", contract.max_symbols_per_step);
  contract.sample_rate = positive_int(contract, "sample_rate", contract.sample_rate);
  contract.window_stride = positive_number(contract, "window_stride", contract.window_stride);
  read_encoder(contract);
  check_predictor(contract);
  read_joint(contract);
  read_preprocessor(contract);
  return contract;
}

TransducerContract read_transducer(const ProgramInfo& program) {
  const ProgramMethod* const encoder = program.find("encoder");
  return read_transducer(read_signatures(program),
                         encoder == nullptr ? std::vector<StateTensor>{}
                                            : find_state(find_sharing(program), *encoder, 2));
}

}  // namespace emm
