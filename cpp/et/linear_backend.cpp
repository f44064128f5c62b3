#include "et/linear_backend.h"

#include <executorch/runtime/backend/interface.h>
#include <executorch/runtime/core/exec_aten/util/tensor_util.h>
#include <executorch/runtime/platform/log.h>

#include <array>
#include <exception>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "et/pointwise_call.h"
#include "et/rotary_call.h"
#include "et/taken_graph.h"
#include "et/weight_copies.h"
#include "linear/kernels.h"
#include "linear/linear.h"
#include "ops/parallel.h"
#include "program/linear_graph.h"
#include "program/pointwise_graph.h"
#include "program/rotary_graph.h"
#include "program/xnnpack_graph.h"

namespace emm {
namespace {

namespace et = executorch::ET_RUNTIME_NAMESPACE;
using executorch::aten::ScalarType;
using executorch::aten::SizesType;
using executorch::aten::Tensor;
using executorch::runtime::ArrayRef;
using executorch::runtime::Error;
using executorch::runtime::EValue;
using executorch::runtime::FreeableBuffer;
using executorch::runtime::Result;
using executorch::runtime::Span;

// Multiplications that are worth another thread.
constexpr int64_t kWorkPerThread = 1 << 17;
constexpr size_t kMaxRank = 16;

linear::TaskRunner pool_runner() {
  return {std::max<int64_t>(1, static_cast<int64_t>(executorch::extension::get_thread_count())),
          [](int64_t tasks, int64_t work,
             const std::function<void(int64_t task, int64_t worker)>& body) {
            ops::run_tasks(tasks, ops::threads_for(tasks, work, kWorkPerThread), body);
          }};
}

// Named data, looked up once and kept.
class NamedData {
 public:
  NamedData() = default;
  explicit NamedData(et::BackendInitContext& context) : map_(context.get_named_data_map()) {}
  // Null where nobody has it.
  const FreeableBuffer* find(std::string_view key) {
    const auto found = buffers_.find(key);
    if (found != buffers_.end()) return &found->second;
    if (map_ == nullptr || key.empty()) return nullptr;
    auto data = map_->get_data(key);
    if (!data.ok()) return nullptr;
    return &buffers_.emplace(std::string(key), std::move(*data)).first->second;
  }

 private:
  const et::NamedDataMap* map_ = nullptr;
  std::map<std::string, FreeableBuffer, std::less<>> buffers_;
};

// The layers of one graph, and what keeps their weights in memory.
class LinearGraph final : public TakenGraph {
 public:
  LinearGraph(NamedData named, const std::vector<LinearNode>& nodes, const linear::Kernels& kernels,
              bool copies, FreeableBuffer& processed)
      : named_(std::move(named)) {
    const auto* data = static_cast<const uint8_t*>(processed.data());
    const std::string what = "linear layers";
    bool in_place = false;
    const auto locate = [&](const LinearData& part) {
      if (part.key.empty()) {
        in_place = true;
        return data + part.offset;
      }
      const FreeableBuffer* buffer = named_.find(part.key);
      if (buffer == nullptr) {
        throw emm::Error(ErrorCode::kLoad, what + ": " + part.key +
                                               " is neither in the program nor in the "
                                               "external_data_map");
      }
      if (buffer->size() < part.bytes) {
        throw emm::Error(ErrorCode::kLoad, what + ": expected " + std::to_string(part.bytes) +
                                               " bytes of " + part.key + ", got " +
                                               std::to_string(buffer->size()));
      }
      return static_cast<const uint8_t*>(buffer->data());
    };
    std::vector<linear::Part> parts;
    for (const LinearNode& node : nodes) {
      linear::Layer layer;
      layer.format = to_format(node.format);
      layer.inputs = node.inputs;
      layer.outputs = node.outputs;
      layer.group = node.group;
      layer.weights = locate(node.weights);
      if (linear::is_quantised(layer.format)) layer.scales = locate(node.scales);
      if (node.bias) layer.bias = locate(*node.bias);
      if (node.low) layer.low = *node.low;
      if (node.high) layer.high = *node.high;
      parts.push_back({layer, input_index(node)});
      output_args_.push_back(node.output_arg);
    }
    if (copies) {
      copy(parts);
      named_ = NamedData();
      in_place = false;
    }
    if (!in_place) processed.Free();
    parts_ = std::make_unique<linear::LinearParts>(std::move(parts), kernels);
  }

  Error run(Args args) override {
    std::vector<const float*> inputs;
    std::vector<int64_t> rows;
    for (const Input& input : inputs_) {
      const Tensor* tensor = tensor_at(args, input.arg);
      if (tensor == nullptr || tensor->dim() == 0 ||
          tensor->size(tensor->dim() - 1) != input.columns) {
        ET_LOG(Error, "linear: input %u: expected floats with %lld columns", input.arg,
               static_cast<long long>(input.columns));
        return Error::InvalidArgument;
      }
      inputs.push_back(tensor->const_data_ptr<float>());
      rows.push_back(tensor->numel() / input.columns);
      if (inputs.back() == nullptr && rows.back() > 0) return Error::InvalidArgument;
    }
    std::vector<float*> outputs;
    for (size_t p = 0; p < output_args_.size(); ++p) {
      const linear::Part& part = parts_->parts()[p];
      const Tensor* input = tensor_at(args, inputs_[part.input].arg);
      const Tensor* output = tensor_at(args, output_args_[p]);
      if (output == nullptr || static_cast<size_t>(input->dim()) > kMaxRank) {
        ET_LOG(Error, "linear: output %u: expected floats", output_args_[p]);
        return Error::InvalidArgument;
      }
      std::array<SizesType, kMaxRank> sizes{};
      const auto rank = static_cast<size_t>(input->dim());
      for (size_t i = 0; i < rank; ++i)
        sizes[i] = static_cast<SizesType>(input->size(static_cast<ssize_t>(i)));
      sizes[rank - 1] = static_cast<SizesType>(part.layer.outputs);
      const Error error = et::resize_tensor(*output, ArrayRef<SizesType>(sizes.data(), rank));
      if (error != Error::Ok) return error;
      if (output->numel() != rows[part.input] * part.layer.outputs) return Error::InvalidArgument;
      outputs.push_back(output->mutable_data_ptr<float>());
      if (outputs.back() == nullptr && output->numel() > 0) return Error::InvalidArgument;
    }
    if (!parts_->run(inputs, rows, outputs, runner_)) {
      ET_LOG(Error, "linear: no memory for %lld rows",
             static_cast<long long>(rows.empty() ? 0 : rows[0]));
      return Error::MemoryAllocationFailed;
    }
    return Error::Ok;
  }

 private:
  struct Input {
    uint32_t arg;
    int64_t columns;
  };

  // In the order in which a step reads them, so that what is prefetched behind the weights of one
  // graph is the beginning of the next one.
  void copy(std::vector<linear::Part>& parts) {
    const auto moved = [this](const uint8_t* from, int64_t bytes) -> const uint8_t* {
      if (from == nullptr) return nullptr;
      const auto size = static_cast<size_t>(bytes);
      return copies_.emplace_back(WeightCopies::instance().copy(from, size)).get();
    };
    for (auto& [layer, input] : parts) {
      layer.scales = moved(layer.scales, layer.scale_bytes());
      layer.bias = moved(layer.bias, layer.outputs * int64_t{sizeof(float)});
    }
    for (auto& [layer, input] : parts)
      layer.weights = moved(layer.weights, layer.outputs * layer.row_bytes());
  }

  static linear::Format to_format(LinearFormat format) {
    switch (format) {
      case LinearFormat::kFloat32:
        return linear::Format::kFloat32;
      case LinearFormat::kInt8:
        return linear::Format::kInt8;
      case LinearFormat::kInt4:
        return linear::Format::kInt4;
      case LinearFormat::kInt4Groups:
        break;
    }
    return linear::Format::kInt4Groups;
  }

  size_t input_index(const LinearNode& node) {
    for (size_t i = 0; i < inputs_.size(); ++i) {
      if (inputs_[i].arg == node.input_arg) return i;
    }
    inputs_.push_back({node.input_arg, node.inputs});
    return inputs_.size() - 1;
  }

  NamedData named_;
  std::vector<WeightCopies::Bytes> copies_;
  std::vector<Input> inputs_;
  std::vector<uint32_t> output_args_;
  std::unique_ptr<linear::LinearParts> parts_;
  linear::TaskRunner runner_ = pool_runner();
};

const linear::Kernels& kernels(et::BackendInitContext& context) {
  const auto name = context.get_runtime_spec<const char*>(kLinearKernelsOption);
  const linear::Kernels* found = name.ok() ? linear::find_kernels(*name) : nullptr;
  return found ? *found : *linear::usable_kernels().front();
}

bool copies_weights(et::BackendInitContext& context) {
  const auto copies = context.get_runtime_spec<bool>(kLinearCopiesOption);
  return copies.ok() && *copies;
}

std::unique_ptr<TakenGraph> take(et::BackendInitContext& context, FreeableBuffer& processed) {
  const auto* data = static_cast<const uint8_t*>(processed.data());
  const std::string what = "a graph of ours";
  NamedData named(context);
  // The file was checked before, but not these bytes: somebody may have written to it since.
  check_xnnpack_graph(data, processed.size(), what,
                      [&named](std::string_view key) -> std::optional<uint64_t> {
                        const FreeableBuffer* buffer = named.find(key);
                        return buffer ? std::optional<uint64_t>(buffer->size()) : std::nullopt;
                      });
  if (const auto nodes = read_linear_graph(data, processed.size(), what)) {
    return std::make_unique<LinearGraph>(std::move(named), *nodes, kernels(context),
                                         copies_weights(context), processed);
  }
  if (const auto parts = read_rotary_graph(data, processed.size(), what)) {
    processed.Free();
    return make_rotary_call(*parts, *kernels(context).pointwise);
  }
  const auto graph = read_pointwise_graph(data, processed.size(), what);
  if (!graph) throw emm::Error(ErrorCode::kLoad, what + ": it holds something else");
  processed.Free();
  return make_pointwise_call(*graph, *kernels(context).pointwise);
}

// ExecuTorch may be built without exceptions: none leaves these functions.
class LinearBackend final : public et::BackendInterface {
 public:
  bool is_available() const override { return true; }

  Result<et::DelegateHandle*> init(et::BackendInitContext& context, FreeableBuffer* processed,
                                   ArrayRef<et::CompileSpec> /*compile_specs*/) const override try {
    return static_cast<et::DelegateHandle*>(take(context, *processed).release());
  } catch (const std::exception& error) {
    ET_LOG(Error, "%s", error.what());
    return Error::InvalidProgram;
  }

  Error execute(et::BackendExecutionContext& /*context*/, et::DelegateHandle* handle,
                Span<EValue*> args) const override try {
    return static_cast<TakenGraph*>(handle)->run(args);
  } catch (const std::exception& error) {
    ET_LOG(Error, "linear: %s", error.what());
    return Error::MemoryAllocationFailed;
  }

  void destroy(et::DelegateHandle* handle) const override {
    delete static_cast<TakenGraph*>(handle);
  }
};

}  // namespace

void register_linear_backend() {
  static LinearBackend backend;
  static const auto error = et::register_backend({kLinearBackend, &backend});
  if (error != executorch::runtime::Error::Ok)
    throw emm::Error(ErrorCode::kLoad, "ExecuTorch has no room for another backend");
}

}  // namespace emm
