// What the binding files share. bind_<topic> functions only bind: names, docstrings and GIL policy.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <string_view>
#include <vector>

#include "bindings/gil.h"
#include "runtime/inputs.h"

namespace nb = nanobind;
using namespace nb::literals;  // "name"_a is unreadable otherwise

namespace emm::bindings {

using WithoutGil = nb::call_guard<ReleaseGil>;

// One part of a prompt as Python holds it; a class of its own because nanobind takes std::variant
// apart.
struct PreparedInput {
  Input input;
};

// A damaged file's bytes may be quoted in a text of the core's: whatever is no UTF-8 becomes
// U+FFFD.
inline nb::str to_str(std::string_view text) {
  return nb::steal<nb::str>(
      PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "replace"));
}

template <typename... Arguments>
nb::object call_python(nb::handle callable, const Arguments&... arguments) {
  PyObject* result = outlast_exit(
      [&] { return PyObject_CallFunctionObjArgs(callable.ptr(), arguments.ptr()..., nullptr); });
  if (result == nullptr) throw nb::python_error();
  return nb::steal(result);
}

// A path as Python has it: names that are no UTF-8 too, but nothing that no file can be called.
struct FsPath {
  nb::object given;

  // Throws Error(kInput).
  std::string native() const;
};

// Token ids as Python has them. Taken as they are and read in the function: nanobind reads a
// std::vector in one that must not throw, so that without memory for a long one the process ends.
struct TokenIds {
  nb::object given;

  // Throws std::bad_alloc, and what Python says of things that are no ids.
  template <typename T>
  operator std::vector<T>() const {
    const nb::object list = nb::steal(PySequence_List(given.ptr()));
    if (!list.is_valid()) throw nb::python_error();
    std::vector<T> ids(nb::len(list));
    for (size_t i = 0; i < ids.size(); ++i) {
      PyObject* item = PyList_GetItem(list.ptr(), static_cast<Py_ssize_t>(i));
      const long long id = PyLong_AsLongLong(item);
      if (id == -1 && PyErr_Occurred() != nullptr) throw nb::python_error();
      ids[i] = static_cast<T>(id);
      if (ids[i] != id) throw nb::value_error("a token id is out of range");
    }
    return ids;
  }
};

template <typename Owner, typename T>
Owner owner_of(T Owner::*);

// A member that holds token ids, as a property.
template <auto kMember>
auto get_ids(const decltype(owner_of(kMember))& owner) {
  return owner.*kMember;
}
template <auto kMember>
void set_ids(decltype(owner_of(kMember))& owner, const TokenIds& ids) {
  owner.*kMember = ids;
}

inline nb::object to_path(const std::string& native) {
  return nb::steal(
      PyUnicode_DecodeFSDefaultAndSize(native.data(), static_cast<Py_ssize_t>(native.size())));
}

void bind_build_info(nb::module_& module);
void bind_errors(nb::module_& module);
void bind_exit(nb::module_& module);
void bind_contract(nb::module_& module);
void bind_image(nb::module_& module);
void bind_inputs(nb::module_& module);
void bind_isolation(nb::module_& module);
void bind_load(nb::module_& module);
void bind_program(nb::module_& module);
void bind_session(nb::module_& module);
void bind_sampling(nb::module_& module);
void bind_generation(nb::module_& module);
void bind_methods(nb::module_& module);
void bind_transducer(nb::module_& module);

}  // namespace emm::bindings

namespace nanobind::detail {

// Takes any object, so that a wrong one is an error of ours and not a TypeError.
template <>
struct type_caster<emm::bindings::FsPath> {
  NB_TYPE_CASTER(emm::bindings::FsPath, const_name("str | os.PathLike[str]"))

  bool from_python(handle source, uint8_t, cleanup_list*) noexcept {
    value.given = borrow(source);
    return true;
  }
};

template <>
struct type_caster<emm::bindings::TokenIds> {
  NB_TYPE_CASTER(emm::bindings::TokenIds, const_name("collections.abc.Sequence[int]"))

  bool from_python(handle source, uint8_t, cleanup_list*) noexcept {
    value.given = borrow(source);
    return PySequence_Check(source.ptr()) != 0;
  }
};

}  // namespace nanobind::detail
