// A .pte opened with ExecuTorch: the program and its methods, each with the arena it lives in and
// the buffers of outputs that the program does not plan. Knows how a model is loaded, not what its
// methods mean.
#pragma once

#include <executorch/extension/module/module.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "et/arena.h"
#include "et/large_pages.h"
#include "et/profile.h"
#include "model/contract.h"
#include "model/load_options.h"
#include "program/program_file.h"

namespace emm {

class EtProgram {
 public:
  struct LoadedMethod {
    const MethodSpec* spec;
    std::unique_ptr<Arena> arena;
    std::vector<std::unique_ptr<uint8_t[]>> output_buffers;  // one per unplanned output
  };

  // Opens and verifies the program; loads no method yet. Throws Error(kLoad), or Error(kInput) for
  // an option that cannot be met.
  explicit EtProgram(const LoadOptions& options);

  const ProgramInfo& structure() const { return structure_; }
  // What the file says, to be asked for once: large programs have a large structure.
  ProgramInfo take_structure() { return std::move(structure_); }
  // Of the program and its data files.
  size_t file_bytes() const { return file_bytes_; }
  int64_t num_threads() const { return num_threads_; }

  // Of the methods loaded from now on: 1, or the size of the process's thread pool. Throws
  // Error(kInput) when an earlier model fixed another size.
  void use_threads(int64_t num_threads);

  // Loads it, again if need be. The spec must outlive the program. Throws Error(kLoad).
  void load_method(const MethodSpec& spec);

  // Of a loaded method: every tensor among its values.
  std::vector<executorch::aten::TensorImpl*> tensors(const std::string& method);
  // Planned memory that methods have in common.
  const SharedBuffers& shared_buffers() const { return shared_; }

  // Of what loading the methods allocated.
  LargePages& large_pages() { return large_pages_; }

  // Runs a loaded method and returns its outputs, which are valid until the same method's next run;
  // of those behind the first, what is no tensor has the dtype kOther. Inputs have the method's
  // dtypes; the program itself refuses other shapes than it takes. Throws Error(input_error) for an
  // input, Error(kExecution) otherwise.
  std::vector<TensorView> run(const std::string& method, const std::vector<TensorView>& inputs,
                              ErrorCode input_error);
  // Adds what copied_input_bytes() grows by to `copied_bytes`.
  std::vector<TensorView> run(const std::string& method, const std::vector<TensorView>& inputs,
                              ErrorCode input_error, int64_t& copied_bytes);

  // The same in steps, for inputs that stay what they are from call to call. A view without a dtype
  // stands for no tensor.
  void set_input(const std::string& method, size_t index, const TensorView& input,
                 ErrorCode input_error);
  std::vector<TensorView> execute(const std::string& method);
  // Where an unplanned output goes from now on; the memory must have room for its bound.
  void set_output(const std::string& method, size_t index, const TensorView& memory);

  // Bytes of inputs that were copied because the program plans them in its arena.
  int64_t copied_input_bytes() const { return copied_input_bytes_; }

  // The methods loaded so far.
  std::map<std::string, LoadedMethod>& methods() { return methods_; }
  const std::map<std::string, LoadedMethod>& methods() const { return methods_; }

  // Forgets what was profiled so far.
  void restart_profile();
  // Ends the profile and writes its file, if one was asked for. Throws Error(kInput).
  void write_profile();

 private:
  // All of these outlive module_, whose methods point into them.
  ModelBytes model_bytes_;
  std::optional<Profile> profile_;
  SharedBuffers shared_;
  std::map<std::string, LoadedMethod> methods_;

  ProgramInfo structure_;
  std::unique_ptr<executorch::extension::Module> module_;
  LargePages large_pages_;
  std::string openvino_library_;
  size_t file_bytes_ = 0;
  bool copies_weights_ = false;  // of linear layers of ours
  int64_t num_threads_ = 1;
  int64_t copied_input_bytes_ = 0;
};

}  // namespace emm
