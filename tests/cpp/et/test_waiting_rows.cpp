// Prompts of texts and embeddings, read by one call of the decoder or by several.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "et/et_executor.h"
#include "model/convert.h"

using namespace emm;

namespace {

constexpr int64_t kRows = 6;
const std::vector<int64_t> kFirst = {1, 20, 31};
const std::vector<int64_t> kLast = {44, 9};

LoadOptions demo() {
  LoadOptions options;
  options.model_path = std::string(EMM_SOURCE_DIR) + "/executorch_mm/models/tiny_vlm/model.pte";
  options.num_threads = 1;
  return options;
}

struct Prompt {
  explicit Prompt(EtExecutor& on) : executor(on) {
    const auto shape = on.contract().decoder().inputs[0].shape;
    rows.resize(static_cast<size_t>(kRows * shape.back()));
    for (size_t i = 0; i < rows.size(); ++i) rows[i] = std::sin(0.1f * static_cast<float>(i));
    view = {rows.data(), DType::kFloat32, {kRows, shape.back()}};
  }

  bool put_off_first(int64_t limit) {
    return executor.put_off_tokens(kFirst.data(), 3, 0, /*has_media=*/true, limit);
  }
  bool put_off_rows(int64_t limit) { return executor.put_off_embeddings(view, 3, limit); }
  std::vector<float> finish() { return floats(executor.decode_tokens(kLast.data(), 2, 3 + kRows)); }

  std::vector<float> alone() {
    executor.reset_state();
    executor.decode_tokens(kFirst.data(), 3, 0);
    executor.decode_embeddings(view, 3, 0);
    return finish();
  }

  static std::vector<float> floats(const TensorView& logits) {
    std::vector<uint8_t> buffer;
    const TensorView values = convert(logits, DType::kFloat32, buffer, "logits");
    const auto* const at = static_cast<const float*>(values.data);
    return {at, at + values.size()};
  }

  EtExecutor& executor;
  std::vector<float> rows;
  TensorView view;
};

float difference(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  float most = 0;
  for (size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(a[i] - b[i]));
  return most;
}

}  // namespace

TEST_CASE("rows that wait are read with what follows them, all or as many as a call may take") {
  EtExecutor executor(demo());
  Prompt prompt(executor);
  const std::vector<float> expected = prompt.alone();
  for (const int64_t limit : {11, 10, 9, 5}) {
    CAPTURE(limit);
    executor.reset_state();
    REQUIRE(prompt.put_off_first(limit));
    const bool fits = limit >= 3 + kRows;
    REQUIRE(prompt.put_off_rows(limit) == fits);
    if (!fits) executor.decode_embeddings(prompt.view, 3, 0);
    CHECK(difference(prompt.finish(), expected) < 1e-4f);
  }
}

TEST_CASE("a prompt that is taken back leaves nothing that waits") {
  EtExecutor executor(demo());
  Prompt prompt(executor);
  const std::vector<float> expected = prompt.alone();
  const auto snapshot = executor.save_state(3 + kRows);

  REQUIRE(prompt.put_off_first(100));
  CHECK(difference(prompt.alone(), expected) == 0);

  // As many rows wait as the state that is put back has.
  const std::vector<int64_t> others(3 + kRows, 7);
  executor.reset_state();
  REQUIRE(executor.put_off_tokens(others.data(), 3 + kRows, 0, /*has_media=*/true, 100));
  executor.restore_state(*snapshot);
  CHECK(difference(prompt.finish(), expected) == 0);

  // Without media nothing waits.
  CHECK_FALSE(executor.put_off_tokens(kFirst.data(), 3, 0, /*has_media=*/false, 100));
}
