#include "et/method_values.h"

#include "base/error.h"

namespace emm {
namespace {

using executorch::ET_RUNTIME_NAMESPACE::Method;
using executorch::runtime::EValue;

// The arguments of an explicit instantiation may name private members ([temp.spec.general]/6); this
// one defines a function that hands them out.
struct Values {
  EValue* first;
  size_t count;
};
Values values_of(const Method& method);

template <EValue* Method::* kValues, size_t Method::* kCount>
struct Access {
  friend Values values_of(const Method& method) { return {method.*kValues, method.*kCount}; }
};
template struct Access<&Method::values_, &Method::n_value_>;

}  // namespace

std::vector<executorch::aten::TensorImpl*> method_tensors(executorch::extension::Module& module,
                                                          const std::string& method) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
  const auto loaded = module.method(method);
#pragma GCC diagnostic pop
  if (!loaded.ok()) throw Error(ErrorCode::kLoad, method + ": it is not loaded");
  std::vector<executorch::aten::TensorImpl*> tensors;
  const Values values = values_of(**loaded);
  for (size_t i = 0; i < values.count; ++i) {
    if (values.first[i].isTensor())
      tensors.push_back(values.first[i].toTensor().unsafeGetTensorImpl());
  }
  return tensors;
}

}  // namespace emm
