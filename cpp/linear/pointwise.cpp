#include "linear/pointwise.h"

#include <algorithm>
#include <array>

#include "linear/pointwise_loops.h"

namespace emm::linear {
namespace {

// Columns go through all steps before the next ones: as many as leave the results of the steps in
// the first-level cache. A multiple of what a vector holds.
constexpr int64_t kScratch = 4096;
int64_t tile_of(size_t steps) {
  return kScratch / static_cast<int64_t>(std::max<size_t>(steps, 1)) / 64 * 64;
}

}  // namespace

const PointwiseLoops kPlainLoops = EMM_POINTWISE_LOOPS;

void PointwisePlan::run(const std::vector<float*>& memory, int64_t begin, int64_t end) const {
  // What lives within a row: a tile of each step's result.
  alignas(64) float scratch[kScratch];
  const int64_t tile = tile_of(steps.size());
  std::array<float*, kMaxValues> at{};
  for (int64_t row = begin; row < end; ++row) {
    for (int64_t first = 0; first < columns; first += tile) {
      const int64_t wide = std::min(tile, columns - first);
      for (size_t v = 0; v < values.size(); ++v) {
        const Value& value = values[v];
        if (!value.is_outside) continue;
        at[v] = memory[v] + (value.has_rows ? row * (value.has_columns ? columns : 1) : 0) +
                (value.has_columns ? first : 0);
      }
      for (size_t s = 0; s < steps.size(); ++s) {
        const PointwiseStep& step = steps[s];
        const Value& to = values[step.to];
        if (!to.has_columns && first > 0) continue;  // is there from the first tile
        if (!to.is_outside) at[step.to] = scratch + static_cast<int64_t>(s) * tile;
        const int64_t n = to.has_columns ? wide : 1;
        if (step.two == nullptr) {
          step.one(at[step.a], at[step.to], n);
          continue;
        }
        const bool is_left_one = to.has_columns && !values[step.a].has_columns;
        const bool is_right_one = to.has_columns && !values[step.b].has_columns;
        const auto loop = is_left_one    ? step.two->one_left
                          : is_right_one ? step.two->one_right
                                         : step.two->both;
        loop(at[step.a], at[step.b], at[step.to], n);
      }
    }
  }
}

}  // namespace emm::linear
