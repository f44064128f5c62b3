#include "et/et_transducer.h"

#include <cstdio>
#include <cstring>
#include <utility>

#include "et/thread_pool.h"
#include "model/contract_checks.h"
#include "model/convert.h"
#include "model/transducer_reader.h"

namespace emm {
namespace {

// A count, id or index that a method gave.
int64_t to_int(const std::string& method, const TensorView& view) {
  if (view.size() == 1 && view.dtype == DType::kInt64)
    return *static_cast<const int64_t*>(view.data);
  if (view.size() == 1 && view.dtype == DType::kInt32)
    return *static_cast<const int32_t*>(view.data);
  throw Error(ErrorCode::kExecution, method + ": expected one integer, got " + view.describe());
}

std::string with_seconds(int64_t count, const char* what, double seconds_each) {
  char seconds[32];
  std::snprintf(seconds, sizeof seconds, " (%.2f s)", static_cast<double>(count) * seconds_each);
  return std::to_string(count) + " " + what + seconds;
}

void expect_at_most(const char* method, int64_t count, int64_t most, const char* what,
                    double seconds_each) {
  if (count <= most) return;
  throw Error(ErrorCode::kInput, std::string("audio: ") + method + " takes at most " +
                                     with_seconds(most, what, seconds_each) + ", got " +
                                     with_seconds(count, what, seconds_each) +
                                     "; cut longer audio at a pause");
}

std::vector<uint8_t> zeros(const TensorSpec& spec) {
  return std::vector<uint8_t>(
      static_cast<size_t>(num_elements(spec.shape)) * dtype_size(spec.dtype), 0);
}

}  // namespace

EtTransducer::Model::Model(std::unique_ptr<EtProgram> opened)
    : contract(read_transducer(opened->take_structure())), program(std::move(opened)) {}

void EtTransducer::Kept::keep(const TensorView& given) {
  bytes.resize(given.size_bytes());
  if (!bytes.empty()) std::memcpy(bytes.data(), given.data, bytes.size());
  view = {bytes.data(), given.dtype, given.shape};
}

EtTransducer::EtTransducer(std::unique_ptr<EtProgram> opened, int64_t num_threads)
    : model_(std::make_shared<Model>(std::move(opened))) {
  EtProgram& program = *model_->program;
  program.use_threads(num_threads > 0 ? num_threads : untried_num_threads(program.file_bytes()));
  for (const char* name : {"preprocessor", "encoder", "decoder_step", "joint"}) {
    if (const MethodSpec* method = contract().find(name)) program.load_method(*method);
  }
  const auto& inputs = contract().methods.at("encoder").inputs;
  for (size_t i = 2; i < inputs.size(); ++i) model_->caches.push_back(zeros(inputs[i]));
  for (size_t i = 0; i < contract().encoder_state.size(); ++i)
    model_->caches.emplace_back(buffer(i), buffer(i) + contract().encoder_state[i].bytes());
}

std::shared_ptr<TransducerState> EtTransducer::new_state() const {
  auto state = std::make_shared<State>();
  state->model = model_.get();
  return state;
}

void EtTransducer::use(std::shared_ptr<TransducerState> state) {
  auto used = std::static_pointer_cast<State>(std::move(state));
  if (used->model != model_.get())
    throw Error(ErrorCode::kInput, "stream: expected one of this model, got one of another");
  state_ = std::move(used);
}

uint8_t* EtTransducer::buffer(size_t index) const {
  const StateTensor& tensor = contract().encoder_state[index];
  return model_->program->methods().at("encoder").arena->at(tensor.arena_buffer, tensor.offset);
}

std::vector<TensorView> EtTransducer::run(const std::string& method, std::vector<TensorView> inputs,
                                          ErrorCode input_error) {
  const MethodSpec& spec = contract().methods.at(method);
  auto& buffers = converted_[method];
  buffers.resize(inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    inputs[i] =
        convert(inputs[i], spec.inputs[i].dtype, buffers[i], place_name(spec, Side::kInput, i));
  }
  return model_->program->run(method, inputs, input_error, copied_bytes_);
}

std::vector<TensorView> EtTransducer::run_on_clip(const std::string& method, const TensorView& clip,
                                                  int64_t length) {
  const MethodSpec& spec = contract().methods.at(method);
  if (!spec.inputs[0].may_be(clip.shape)) {
    throw Error(ErrorCode::kInput,
                "audio: " + method + " expects " +
                    TensorView{nullptr, spec.inputs[0].dtype, spec.inputs[0].shape}.describe() +
                    " (or less where dynamic), got " + clip.describe());
  }
  if (!all_finite(clip))
    throw Error(ErrorCode::kInput, "audio: expected finite values, got NaN or infinity");
  if (clip.dtype != spec.inputs[0].dtype) copied_bytes_ += static_cast<int64_t>(clip.size_bytes());
  std::vector<TensorView> inputs = {
      clip, {&length, DType::kInt64, Shape(spec.inputs[1].shape.size(), 1)}};
  for (size_t i = 2; i < spec.inputs.size(); ++i)
    inputs.push_back({state_->caches[i - 2].data(), spec.inputs[i].dtype, spec.inputs[i].shape});
  return run(method, std::move(inputs), ErrorCode::kInput);
}

TransducerExecutor::Features EtTransducer::preprocess(const TensorView& samples) {
  if (!contract().has_preprocessor()) {
    throw Error(ErrorCode::kInput, "audio: the model has no preprocessor: expected features (1, " +
                                       std::to_string(contract().num_bins) +
                                       ", columns), got samples");
  }
  expect_at_most("preprocessor", samples.size(), contract().max_samples, "samples",
                 1.0 / static_cast<double>(contract().sample_rate));
  const auto outputs = run_on_clip("preprocessor", samples, samples.size());
  return {outputs[0], to_int("preprocessor", outputs[1])};
}

int64_t EtTransducer::encode(const Features& features) {
  const TensorView& columns = features.columns;
  const int64_t num_columns = columns.shape.empty() ? 0 : columns.shape.back();
  expect_at_most("encoder", num_columns, contract().max_columns, "columns of features",
                 contract().window_stride);
  if (features.length < 0 || features.length > num_columns) {
    throw Error(ErrorCode::kInput, "audio: expected a length of 0 to " +
                                       std::to_string(num_columns) + " columns, got " +
                                       std::to_string(features.length));
  }
  const size_t num_buffers = contract().encoder_state.size();
  auto& caches = state_->caches;
  const auto cache_of = [&](size_t i) -> auto& { return caches[caches.size() - num_buffers + i]; };
  for (size_t i = 0; i < num_buffers; ++i)
    std::memcpy(buffer(i), cache_of(i).data(), cache_of(i).size());
  const auto outputs = run_on_clip("encoder", columns, features.length);
  const TensorView& frames = outputs[0];
  const int64_t num_frames = to_int("encoder", outputs[1]);
  if (frames.shape.size() != 3 || num_frames < 0 || num_frames > frames.shape[1]) {
    throw Error(ErrorCode::kExecution, "encoder: it says that it made " +
                                           std::to_string(num_frames) + " frames, but gave " +
                                           frames.describe());
  }
  if (contract().takes_chunks() && features.length == contract().max_columns &&
      num_frames * contract().subsampling != contract().chunk_columns) {
    throw Error(ErrorCode::kExecution,
                "encoder: expected " +
                    std::to_string(contract().chunk_columns / contract().subsampling) +
                    " frames of a whole chunk, got " + std::to_string(num_frames));
  }
  state_->frames.keep(frames);
  for (size_t i = 2; i < outputs.size(); ++i)
    std::memcpy(caches[i - 2].data(), outputs[i].data, caches[i - 2].size());
  for (size_t i = 0; i < num_buffers; ++i)
    std::memcpy(cache_of(i).data(), buffer(i), cache_of(i).size());
  return num_frames;
}

void EtTransducer::restart() {
  const MethodSpec& predictor = contract().methods.at("decoder_step");
  state_->caches = model_->caches;
  state_->hidden = zeros(predictor.inputs[1]);
  state_->cell = zeros(predictor.inputs[2]);
  read(contract().blank_id);
}

void EtTransducer::read(int64_t token) {
  const auto& inputs = contract().methods.at("decoder_step").inputs;
  const auto outputs = run("decoder_step",
                           {{&token, DType::kInt64, inputs[0].shape},
                            {state_->hidden.data(), inputs[1].dtype, inputs[1].shape},
                            {state_->cell.data(), inputs[2].dtype, inputs[2].shape}},
                           ErrorCode::kExecution);
  std::memcpy(state_->hidden.data(), outputs[1].data, state_->hidden.size());
  std::memcpy(state_->cell.data(), outputs[2].data, state_->cell.size());
  state_->prediction.keep(outputs[0]);
}

JointChoice EtTransducer::choose(int64_t frame) {
  const TensorView& frames = state_->frames.view;
  const int64_t size = frames.shape[2];
  const size_t row_bytes = static_cast<size_t>(size) * dtype_size(frames.dtype);
  const TensorView row{
      frames.at_byte(static_cast<size_t>(frame) * row_bytes), frames.dtype, {1, 1, size}};
  const auto outputs = run("joint", {row, state_->prediction.view}, ErrorCode::kExecution);
  return {to_int("joint", outputs[0]), outputs.size() > 1 ? to_int("joint", outputs[1]) : 0};
}

}  // namespace emm
