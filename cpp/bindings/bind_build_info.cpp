#include "bindings/bindings.h"
#include "et/build_info.h"
#include "et/thread_pool.h"

namespace emm::bindings {

void bind_build_info(nb::module_& module) {
  nb::class_<BuildInfo>(module, "BuildInfo", "What this build of the library consists of.")
      .def_ro("compiler", &BuildInfo::compiler)
      .def_ro("instruction_set", &BuildInfo::instruction_set)
      .def_ro("linear_kernels", &BuildInfo::linear_kernels)
      .def_ro("linear_kernels_on_request", &BuildInfo::linear_kernels_on_request)
      .def_ro("own_operators", &BuildInfo::own_operators)
      .def_ro("sdk_operators", &BuildInfo::sdk_operators)
      .def_ro("backends", &BuildInfo::backends);
  module.def("build_info", build_info);
  module.def("thread_pool_size", thread_pool_size);
  module.def("is_thread_pool_claimed", is_thread_pool_claimed,
             "Whether a model has fixed the pool's size.");
}

}  // namespace emm::bindings
