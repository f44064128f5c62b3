#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "linear/kernels.h"
#include "linear/linear.h"

namespace emm::linear {

// What this machine runs, and AMX's kernels on emulated tiles. With EMM_TEST_AMX=1 also on the
// processor's: by default they are not run, because no machine of ours has them.
const std::vector<const Kernels*>& tested_kernels();

struct Shape {
  Format format;
  int64_t inputs;
  int64_t outputs;
  int64_t group;
};

// What a layer gives for so many rows; of several runs the last.
inline std::vector<float> run(const Layer& layer, const std::vector<float>& x, int64_t rows,
                              const Kernels& kernels, const TaskRunner& runner = serial_runner(),
                              int times = 1) {
  LinearParts parts({{layer, 0}}, kernels);
  std::vector<float> out(static_cast<size_t>(rows * layer.outputs), NAN);
  for (int i = 0; i < times; ++i) REQUIRE(parts.run({x.data()}, {rows}, {out.data()}, runner));
  return out;
}

}  // namespace emm::linear
