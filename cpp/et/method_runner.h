// Runs the methods of any program by name, for models that are no language models (embeddings of
// images and texts). Keeps nothing between calls; those of several threads take turns, in the order
// of their arrival.
#pragma once

#include <atomic>
#include <map>
#include <string>
#include <vector>

#include "base/turns.h"
#include "et/et_program.h"
#include "model/contract.h"
#include "model/load_options.h"

namespace emm {

struct FloatTensor {
  std::vector<float> values;
  Shape shape;
};

class MethodRunner {
 public:
  // Loads every method that takes inputs. Throws Error(kLoad).
  explicit MethodRunner(const LoadOptions& options);

  // By name, constant methods included.
  const std::map<std::string, MethodSpec>& methods() const { return methods_; }
  // Values of the constant ones, by name; tensors are none.
  const std::map<std::string, MetadataValue>& metadata() const { return metadata_; }
  int64_t num_threads() const { return program_.num_threads(); }

  // A copy of one of the method's outputs as float32. Inputs are used in place where dtype and
  // program allow it. Throws Error(kInput) for what the method does not take, without a turn.
  FloatTensor run(const std::string& method, const std::vector<TensorView>& inputs,
                  size_t output = 0);
  // All of them.
  std::vector<FloatTensor> run_all(const std::string& method,
                                   const std::vector<TensorView>& inputs);

  // Bytes of inputs that had to be copied so far: another dtype, or planned by the program.
  int64_t copied_input_bytes() const { return copied_input_bytes_; }

 private:
  // Throws Error(kInput) for what the method does not take.
  const MethodSpec& checked(const std::string& method, const std::vector<TensorView>& inputs) const;
  // The outputs, valid until the next call.
  std::vector<TensorView> call(const MethodSpec& method, const std::vector<TensorView>& inputs);

  TurnQueue turns_;
  std::map<std::string, MethodSpec> methods_;  // outlives program_, which refers to its entries
  std::map<std::string, MetadataValue> metadata_;
  EtProgram program_;
  std::vector<std::vector<uint8_t>> converted_;  // inputs in the method's dtypes
  std::atomic<int64_t> copied_input_bytes_{0};
};

}  // namespace emm
