// emm::Error -> the exception classes of executorch_mm.errors, chosen by code.
#include <exception>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>

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
    case ErrorCode::kProcess:
      return "IsolatedProcessError";
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
  } catch (const std::bad_alloc&) {
    PyErr_SetString(PyExc_MemoryError, "the memory does not suffice for this call");
  } catch (const std::length_error& error) {
    PyErr_Format(PyExc_MemoryError, "more memory was asked for than there can be (%s)",
                 error.what());
  } catch (const std::system_error& error) {  // of the system's threads and locks
    const nb::object type = nb::module_::import_("executorch_mm.errors").attr("ExecutionError");
    const nb::object message = to_str(std::string("the system refuses: ") + error.what());
    PyErr_SetObject(type.ptr(), message.ptr());
  }
}

}  // namespace

std::string FsPath::native() const {
  const nb::object text = nb::steal(PyOS_FSPath(given.ptr()));
  PyObject* bytes = nullptr;
  if (!text.is_valid() || !PyUnicode_Check(text.ptr()) ||
      PyUnicode_FSConverter(text.ptr(), &bytes) == 0) {
    if (PyErr_Occurred() != nullptr && PyErr_ExceptionMatches(PyExc_TypeError) == 0 &&
        PyErr_ExceptionMatches(PyExc_ValueError) == 0)
      throw nb::python_error();  // of a caller's object
    PyErr_Clear();
    throw Error(ErrorCode::kInput,
                "path: expected a str without null bytes and lone surrogates, got " +
                    std::string(nb::str(given.type().attr("__name__")).c_str()));
  }
  const nb::object owner = nb::steal(bytes);
  return {PyBytes_AsString(bytes), static_cast<size_t>(PyBytes_Size(bytes))};
}

void bind_errors(nb::module_&) { nb::register_exception_translator(translate, nullptr); }

}  // namespace emm::bindings
