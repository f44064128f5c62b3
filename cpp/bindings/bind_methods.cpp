#include <nanobind/stl/map.h>
#include <nanobind/stl/variant.h>

#include <memory>
#include <utility>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "bindings/fork.h"
#include "et/method_runner.h"

namespace emm::bindings {
namespace {

std::shared_ptr<MethodRunner> load(const LoadOptions& options) {
  return kept_in_children(std::make_unique<MethodRunner>(options));
}

FloatArray run(MethodRunner& runner, const std::string& method, const std::vector<Array>& inputs,
               size_t output) {
  std::vector<TensorView> views;
  for (const Array& input : inputs) views.push_back(to_view(input));
  FloatTensor made;
  {
    const ReleaseGil released;
    made = runner.run(method, views, output);
  }
  return to_array(std::move(made.values), made.shape);
}

std::vector<FloatArray> run_all(MethodRunner& runner, const std::string& method,
                                const std::vector<Array>& inputs) {
  std::vector<TensorView> views;
  for (const Array& input : inputs) views.push_back(to_view(input));
  std::vector<FloatTensor> made;
  {
    const ReleaseGil released;
    made = runner.run_all(method, views);
  }
  std::vector<FloatArray> arrays;
  for (FloatTensor& tensor : made)
    arrays.push_back(to_array(std::move(tensor.values), tensor.shape));
  return arrays;
}

}  // namespace

void bind_methods(nb::module_& module) {
  nb::class_<MethodRunner>(module, "MethodRunner", "Runs methods of any program by name.")
      .def_static("load", load, "options"_a, WithoutGil(), "Loads every method that takes inputs.")
      .def_prop_ro("methods", &MethodRunner::methods, "Signatures by name.")
      .def_prop_ro("metadata", &MethodRunner::metadata, "Values of the constant methods, by name.")
      .def_prop_ro("num_threads", &MethodRunner::num_threads)
      .def_prop_ro("copied_input_bytes", &MethodRunner::copied_input_bytes)
      .def("run", run, "method"_a, "inputs"_a, "output"_a = 0,
           "One of the outputs as a float32 array of its own. Inputs are used in place.")
      .def("run_all", run_all, "method"_a, "inputs"_a,
           "All outputs as float32 arrays of their own. Inputs are used in place.");
}

}  // namespace emm::bindings
