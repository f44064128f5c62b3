// EtExecutor's calls for several conversations: their tokens on one axis, each with its own cache.
#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>

#include "base/error.h"
#include "et/et_executor.h"
#include "et/outputs.h"
#include "model/convert.h"

namespace emm {

std::vector<EtExecutor*> EtExecutor::check_batch(const std::vector<BatchPart>& parts) const {
  const auto refuse = [](const std::string& message) {
    throw Error(ErrorCode::kInput, "batch: " + message);
  };
  if (current_->max_batch_tokens < 2)
    refuse(current_->decoder_name + " takes one conversation at a time");
  std::vector<EtExecutor*> executors;
  int64_t num_tokens = 0;
  for (const BatchPart& part : parts) {
    auto* const executor = dynamic_cast<EtExecutor*>(part.conversation);
    if (executor == nullptr || executor->model_ != model_)
      refuse("expected conversations with one model");
    if (executor->current_ != current_)
      refuse("expected conversations with the method " + current_->decoder_name +
             ", got one with " + executor->current_->decoder_name);
    if (executor->decoding_ != decoding_)
      refuse("expected conversations with the same adapter, or none");
    if (std::find(executors.begin(), executors.end(), executor) != executors.end())
      refuse("expected each conversation once");
    if (part.num_tokens < 1) refuse("expected a token of each conversation");
    if (current_->is_encoder_decoder() && executor->encoder_outputs_ == nullptr)
      refuse("expected a clip or source text of each conversation before its first token");
    executors.push_back(executor);
    num_tokens += std::min(part.num_tokens, current_->max_batch_tokens + 1);
  }
  if (num_tokens < 1 || num_tokens > current_->max_batch_tokens) {
    refuse("expected 1 to " + std::to_string(current_->max_batch_tokens) + " tokens, got " +
           std::to_string(num_tokens));
  }
  return executors;
}

bool EtExecutor::goes_with(const Executor& other) const {
  const auto* const theirs = dynamic_cast<const EtExecutor*>(&other);
  return theirs != nullptr && current_->max_batch_tokens > 1 && theirs->model_ == model_ &&
         theirs->current_ == current_ && theirs->decoding_ == decoding_;
}

const std::vector<ops::KvSource>& EtExecutor::sources() {
  std::vector<ops::KvSource>& sources = encoder_outputs_->sources;
  sources.clear();
  for (const TensorView& view : encoder_outputs_->views)
    sources.push_back({view.data, view.shape[1]});
  return sources;
}

std::vector<TensorView> EtExecutor::decode_batch(const std::vector<BatchPart>& parts) {
  const std::vector<EtExecutor*> executors = check_batch(parts);
  const MethodSpec& decoder = current_->decoder();
  const DecoderInputs places = decoder_inputs(decoder);
  std::vector<int64_t> ids;
  std::vector<ops::KvSpan> spans;
  positions_.clear();
  for (size_t i = 0; i < parts.size(); ++i) {
    const BatchPart& part = parts[i];
    ids.insert(ids.end(), part.ids, part.ids + part.num_tokens);
    for (int64_t token = 0; token < part.num_tokens; ++token)
      positions_.push_back(part.position + token);
    ops::KvSpan span{&executors[i]->sequence_, part.num_tokens};
    if (current_->is_encoder_decoder()) span.sources = &executors[i]->sources();
    spans.push_back(span);
  }
  const auto num_tokens = static_cast<int64_t>(ids.size());
  std::vector<TensorView> inputs(decoder.inputs.size());
  const auto position_place = static_cast<size_t>(places.position);
  if (current_->is_encoder_decoder()) {
    const auto& views = executors[0]->encoder_outputs_->views;
    std::copy(views.begin(), views.end(), inputs.begin() + 1);
  }
  const auto token_place = static_cast<size_t>(places.tokens);
  inputs[token_place] = convert({ids.data(), DType::kInt64, {1, num_tokens}},
                                decoder.inputs[token_place].dtype, converted_ids_, "decoder input");
  inputs[position_place] =
      convert({positions_.data(), DType::kInt64, {num_tokens}},
              decoder.inputs[position_place].dtype, converted_positions_, "positions");
  model_->outer_cache()->begin_step(std::move(spans));
  const ops::KvCacheScope scope(model_->outer_cache());
  const TensorView logits = as_rows(
      decoding_->program->run(decoder.name, inputs, ErrorCode::kExecution, copied_input_bytes_)[0]);
  if (logits.shape[0] != num_tokens) {
    throw Error(ErrorCode::kExecution, decoder.name + ": expected logits of " +
                                           std::to_string(num_tokens) + " tokens, got " +
                                           std::to_string(logits.shape[0]) + " rows");
  }
  std::vector<TensorView> last_rows;
  int64_t row = -1;
  for (size_t i = 0; i < parts.size(); ++i) {
    row += parts[i].num_tokens;
    // A copy also where nobody shares the model: another conversation's call would overwrite it.
    last_rows.push_back(copied(last_row(row_range(logits, row, 1)), executors[i]->last_logits_));
  }
  return last_rows;
}

}  // namespace emm
