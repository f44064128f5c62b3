// The contents page of executorch_mm._core.
#include "bindings/bindings.h"

NB_MODULE(_core, module) {
  module.doc() = "C++ core of executorch_mm. Internal: use the classes of executorch_mm.";
  module.attr("version") = EMM_VERSION;
  module.attr("executorch_version") = EMM_EXECUTORCH_VERSION;
  emm::bindings::bind_errors(module);
  emm::bindings::bind_exit(module);
  emm::bindings::bind_build_info(module);
  emm::bindings::bind_contract(module);
  emm::bindings::bind_image(module);
  emm::bindings::bind_inputs(module);
  emm::bindings::bind_load(module);
  emm::bindings::bind_isolation(module);
  emm::bindings::bind_program(module);
  emm::bindings::bind_session(module);
  emm::bindings::bind_sampling(module);
  emm::bindings::bind_generation(module);
  emm::bindings::bind_methods(module);
  emm::bindings::bind_transducer(module);
}
