// aten::mean.out against the SDK's kernel, and long rows for a cache.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <executorch/extension/tensor/tensor.h>
#include <executorch/runtime/kernel/operator_registry.h>
#include <executorch/runtime/platform/runtime.h>

#include "ops/kernels.h"
#include "ops/op_args.h"

namespace {

using executorch::aten::ScalarType;
using executorch::extension::make_tensor_ptr;
using executorch::extension::TensorPtr;
using executorch::runtime::BoxedEvalueList;
using executorch::runtime::Error;
using executorch::runtime::EValue;

executorch::ET_RUNTIME_NAMESPACE::OpFunction ours(const std::string& name) {
  for (const auto& kernel : emm::ops::llm_kernels()) {
    if (name == kernel.name_) return kernel.op_;
  }
  return nullptr;
}

Error call(executorch::ET_RUNTIME_NAMESPACE::OpFunction op, std::vector<EValue>& values) {
  std::vector<EValue*> stack;
  for (EValue& value : values) stack.push_back(&value);
  emm::ops::Context context;
  op(context, {stack.data(), stack.size()});
  return context.failure_state();
}

// The bytes of the mean along `dim`, by our kernel or the SDK's; "error" where it refuses.
std::string mean_of(const TensorPtr& in, const std::vector<int64_t>& dims, bool keeps,
                    std::vector<executorch::aten::SizesType> sizes, bool is_ours) {
  executorch::runtime::runtime_init();
  std::vector<EValue> items;
  std::vector<EValue*> pointers;
  for (const int64_t dim : dims) items.emplace_back(dim);
  for (EValue& item : items) pointers.push_back(&item);
  std::vector<int64_t> unwrapped(dims.size());
  BoxedEvalueList<int64_t> list(pointers.data(), unwrapped.data(), static_cast<int>(dims.size()));
  const TensorPtr out = executorch::extension::zeros(std::move(sizes), in->scalar_type());
  std::vector<EValue> values = {EValue(*in), EValue(&list), EValue(keeps),
                                EValue(),    EValue(*out),  EValue(*out)};
  const auto sdk =
      executorch::ET_RUNTIME_NAMESPACE::get_op_function_from_registry("aten::mean.out");
  REQUIRE(sdk.ok());
  if (call(is_ours ? ours("aten::mean.out") : *sdk, values) != Error::Ok) return "error";
  return {static_cast<const char*>(out->const_data_ptr()), out->nbytes()};
}

std::vector<float> numbers(size_t count) {
  std::mt19937 random(7);
  std::uniform_real_distribution<float> exponent(-20, 20);
  std::vector<float> values(count);
  for (float& value : values)
    value = std::exp2(exponent(random)) * (random() % 2 == 0 ? 1.f : -1.f);
  return values;
}

}  // namespace

TEST_CASE("means of rows have the bits of the SDK's kernel, however many rows there are") {
  for (const int rows : {1, 7, 8, 9, 31, 33, 300}) {
    for (const int columns : {1, 3, 64, 577}) {
      CAPTURE(rows);
      CAPTURE(columns);
      std::vector<float> values = numbers(static_cast<size_t>(rows * columns));
      values[values.size() / 2] = std::numeric_limits<float>::infinity();
      values.back() = std::numeric_limits<float>::quiet_NaN();
      const TensorPtr in = make_tensor_ptr({1, rows, columns}, std::move(values));
      for (const int64_t dim : {-1, 2}) {
        const std::string expected = mean_of(in, {dim}, true, {1, rows, 1}, false);
        REQUIRE(expected != "error");
        CHECK((mean_of(in, {dim}, true, {1, rows, 1}, true) == expected));
        CHECK((mean_of(in, {dim}, false, {1, rows}, true) == expected));
      }
    }
  }
}

TEST_CASE("other means are the SDK's") {
  const TensorPtr floats = make_tensor_ptr({2, 3, 4}, numbers(24));
  CHECK((mean_of(floats, {0}, true, {1, 3, 4}, true) ==
         mean_of(floats, {0}, true, {1, 3, 4}, false)));
  CHECK((mean_of(floats, {1, 2}, false, {2}, true) == mean_of(floats, {1, 2}, false, {2}, false)));
  const TensorPtr doubles = make_tensor_ptr({2, 3}, std::vector<double>{1, 2, 3, 4, 5, 7});
  CHECK(
      (mean_of(doubles, {-1}, true, {2, 1}, true) == mean_of(doubles, {-1}, true, {2, 1}, false)));
}

TEST_CASE("a cache gets rows that several threads copy") {
  const int tokens = 300;  // of 768 bytes
  const TensorPtr value = make_tensor_ptr({1, tokens, 3, 64}, numbers(tokens * 192));
  const TensorPtr cache = executorch::extension::zeros({1, 400, 3, 64});
  const TensorPtr out = executorch::extension::zeros({1});
  std::vector<EValue> values = {EValue(*value), EValue(*cache), EValue(int64_t{50}), EValue(*out)};
  REQUIRE((call(ours("llama::update_cache.out"), values) == Error::Ok));
  const float* const rows = cache->const_data_ptr<float>();
  CHECK(std::memcmp(rows + 50 * 192, value->const_data_ptr(), value->nbytes()) == 0);
  for (const int at : {0, 50 * 192 - 1, 350 * 192, 400 * 192 - 1}) CHECK(rows[at] == 0);
}
