// Runs the methods of any program by name, for models that are no language models (embeddings of
// images and texts). Keeps nothing between calls.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <vector>

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
  int64_t num_threads() const { return program_.num_threads(); }

  // A copy of one of the method's outputs as float32. Inputs are used in place where dtype and
  // program allow it. Throws Error(kInput) for what the method does not take, Error(kBusy) when
  // another thread is in here.
  FloatTensor run(const std::string& method, const std::vector<TensorView>& inputs,
                  size_t output = 0);

  // Bytes of inputs that had to be copied so far: another dtype, or planned by the program.
  int64_t copied_input_bytes() const {
    return converted_input_bytes_ + program_.copied_input_bytes();
  }

 private:
  std::mutex mutex_;
  std::map<std::string, MethodSpec> methods_;  // outlives program_, which refers to its entries
  EtProgram program_;
  std::vector<std::vector<uint8_t>> converted_;  // inputs in the method's dtypes
  int64_t converted_input_bytes_ = 0;
};

}  // namespace emm
