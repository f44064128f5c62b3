#include "et/method_runner.h"

#include "base/error.h"
#include "et/thread_pool.h"
#include "model/convert.h"
#include "model/signatures.h"

namespace emm {
namespace {

std::string input_name(const std::string& method, size_t index) {
  return method + ": input " + std::to_string(index);
}

void check_input(const std::string& method, size_t index, const TensorSpec& wanted,
                 const TensorView& given) {
  if (!wanted.may_be(given.shape)) {
    throw Error(ErrorCode::kInput, input_name(method, index) + ": expected " +
                                       TensorView{nullptr, wanted.dtype, wanted.shape}.describe() +
                                       " (or less where dynamic), got " + given.describe());
  }
  if (!all_finite(given))
    throw Error(ErrorCode::kInput,
                input_name(method, index) + ": expected finite values, got NaN or infinity");
}

FloatTensor to_floats(const TensorView& output, const std::string& method, size_t index) {
  std::vector<uint8_t> buffer;
  const TensorView floats =
      convert(output, DType::kFloat32, buffer, method + ": output " + std::to_string(index));
  const float* values = static_cast<const float*>(floats.data);
  return {{values, values + floats.size()}, floats.shape};
}

}  // namespace

MethodRunner::MethodRunner(const LoadOptions& options) : program_(options) {
  program_.use_threads(options.num_threads > 0 ? options.num_threads
                                               : untried_num_threads(program_.file_bytes()));
  const auto structure = program_.take_structure();
  methods_ = read_methods(structure);
  metadata_ = read_signatures(structure).metadata;
  for (const auto& [name, method] : methods_) {
    if (!method.inputs.empty()) program_.load_method(method);
  }
}

const MethodSpec& MethodRunner::checked(const std::string& method,
                                        const std::vector<TensorView>& inputs) const {
  const auto found = program_.methods().find(method);
  if (found == program_.methods().end())
    throw Error(ErrorCode::kInput, "the program has no method " + method + " that takes inputs");
  const std::vector<TensorSpec>& wanted = found->second.spec->inputs;
  if (inputs.size() != wanted.size()) {
    throw Error(ErrorCode::kInput, method + ": expected " + std::to_string(wanted.size()) +
                                       " inputs, got " + std::to_string(inputs.size()));
  }
  for (size_t i = 0; i < inputs.size(); ++i) check_input(method, i, wanted[i], inputs[i]);
  return *found->second.spec;
}

std::vector<TensorView> MethodRunner::call(const MethodSpec& method,
                                           const std::vector<TensorView>& inputs) {
  std::vector<TensorView> given;
  converted_.resize(inputs.size());
  const int64_t before = program_.copied_input_bytes();
  for (size_t i = 0; i < inputs.size(); ++i) {
    given.push_back(
        convert(inputs[i], method.inputs[i].dtype, converted_[i], input_name(method.name, i)));
    if (given[i].data != inputs[i].data)
      copied_input_bytes_ += static_cast<int64_t>(inputs[i].size_bytes());
  }
  std::vector<TensorView> outputs = program_.run(method.name, given, ErrorCode::kInput);
  copied_input_bytes_ += program_.copied_input_bytes() - before;
  return outputs;
}

FloatTensor MethodRunner::run(const std::string& method, const std::vector<TensorView>& inputs,
                              size_t output) {
  const MethodSpec& spec = checked(method, inputs);
  if (output >= spec.outputs.size()) {
    throw Error(ErrorCode::kInput, method + ": expected one of " +
                                       std::to_string(spec.outputs.size()) +
                                       " outputs, got number " + std::to_string(output));
  }
  const Turn turn(&turns_, 0);
  return to_floats(call(spec, inputs)[output], method, output);
}

std::vector<FloatTensor> MethodRunner::run_all(const std::string& method,
                                               const std::vector<TensorView>& inputs) {
  const MethodSpec& spec = checked(method, inputs);
  const Turn turn(&turns_, 0);
  std::vector<FloatTensor> made;
  for (const TensorView& output : call(spec, inputs))
    made.push_back(to_floats(output, method, made.size()));
  return made;
}

}  // namespace emm
