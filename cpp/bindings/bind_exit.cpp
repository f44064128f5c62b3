#ifndef _WIN32
#include <pthread.h>
#endif

#include "bindings/bindings.h"
#include "bindings/fork.h"

namespace emm::bindings {
namespace {

class ForeignWork {
 public:
  void enter() const { begin_foreign_work(); }
  void exit(const nb::args&) const { end_foreign_work(); }
};

// Objects that a thread still holds when the process ends, or held when it was forked, were not
// forgotten by anybody.
void prepare_exit(int64_t first_process) {
  end_native_work();
  const auto num_threads = nb::cast<int>(nb::module_::import_("threading").attr("active_count")());
  if (num_threads > 1 || process_id() != first_process) nb::set_leak_warnings(false);
}

}  // namespace

void bind_exit(nb::module_& module) {
  nb::class_<ForeignWork>(module, "ForeignWork",
                          "Surrounds a call of another library that gives back the GIL.")
      .def(nb::init<>())
      .def("__enter__", &ForeignWork::enter)
      .def("__exit__", &ForeignWork::exit, nb::sig("def __exit__(self, *_: object) -> None"));
  module.def(
      "prepare_exit", [owner = process_id()] { prepare_exit(owner); },
      "Waits a while for the native work of other threads, and lets them begin no more.");
  nb::module_::import_("atexit").attr("register")(module.attr("prepare_exit"));
#ifndef _WIN32
  pthread_atfork(nullptr, nullptr, forget_other_threads);
#endif
}

}  // namespace emm::bindings
