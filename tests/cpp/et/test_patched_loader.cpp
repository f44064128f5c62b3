#include "et/patched_loader.h"

#include <doctest/doctest.h>

namespace emm {
namespace {

// A method with one linear layer and one graph that computes number by number.
ProgramInfo with_two_graphs() {
  ProgramDelegate linear;
  linear.is_linear = true;
  linear.id_at = 100;
  ProgramDelegate pointwise;
  pointwise.is_pointwise = true;
  pointwise.id_at = 200;
  ProgramMethod method;
  method.delegates = {linear, pointwise};
  ProgramInfo program;
  program.methods.push_back(method);
  program.program_bytes = 1000;
  program.segment_base = 4096;
  return program;
}

TEST_CASE("graphs are counted by what they are") {
  const ProgramInfo program = with_two_graphs();
  CHECK(count_linear_delegates(program, {"own", true}) == 1);
  CHECK(count_pointwise_delegates(program, {"own", true}) == 1);
  CHECK(count_pointwise_delegates(program, {"own", false}) == 0);
  LinearChoice only_int4{"own", true};
  only_int4.only_int4 = true;
  CHECK(count_linear_delegates(program, only_int4) == 0);
}

TEST_CASE("nothing is taken over in a file without segments, whose header has no room for a size") {
  ProgramInfo program = with_two_graphs();
  program.segment_base = 0;
  CHECK(count_linear_delegates(program, {"own", true}) == 0);
  CHECK(count_pointwise_delegates(program, {"own", true}) == 0);
}

TEST_CASE("nothing is taken over where the structure holds the weights") {
  ProgramInfo program = with_two_graphs();
  program.program_bytes = uint64_t{65} << 20;
  CHECK(count_linear_delegates(program, {"own", true}) == 0);
  CHECK(count_pointwise_delegates(program, {"own", true}) == 0);
}

}  // namespace
}  // namespace emm
