// emm::Error -> the exception classes of executorch_mm.errors, chosen by code.
#include <exception>

#include "base/error.h"
#include "bindings/bindings.h"

namespace emm::bindings {
namespace {

const char* class_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::kLoad:
      return "ModelLoadError";
    case ErrorCode::kContract:
      return "ContractError";
    case ErrorCode::kInput:
      return "InputError";
    case ErrorCode::kCapacity:
      return "CapacityError";
    case ErrorCode::kExecution:
      return "ExecutionError";
    case ErrorCode::kBusy:
      return "BusyError";
  }
  return "ExecutionError";
}

void translate(const std::exception_ptr& pointer, void*) {
  try {
    std::rethrow_exception(pointer);
  } catch (const Error& error) {
    const nb::object type =
        nb::module_::import_("executorch_mm.errors").attr(class_name(error.code()));
    const nb::object message = to_str(error.what());
    const nb::object instance =
        error.code() == ErrorCode::kCapacity
            ? call_python(type, message, nb::int_(error.needed()), nb::int_(error.available()))
            : call_python(type, message);
    PyErr_SetObject(type.ptr(), instance.ptr());
  }
}

}  // namespace

void bind_errors(nb::module_&) { nb::register_exception_translator(translate, nullptr); }

}  // namespace emm::bindings
