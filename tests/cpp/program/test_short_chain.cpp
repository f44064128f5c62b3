// On export_llm's program with two layers.
#include "program/short_chain.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "program/chain_uses.h"
#include "program/program_patch.h"
#include "tested_method.h"

namespace {

using namespace emm;

size_t num_rotary(const ProgramMethod& method) {
  return shorten_chain(method).rotary_delegates.size();
}

TEST_CASE(
    "what takes the input of a rotary embedding apart is dropped, with the view of its result") {
  Method given;
  const size_t call = given.find_rotary();
  const std::vector<int32_t> before = given.args(call);
  const ShortChain chain = shorten_chain(given.method);

  CHECK(chain.rotary_delegates.size() == 2);
  CHECK(chain.num_dropped() == 24);
  for (size_t i = 0; i < chain.is_dropped.size(); ++i) {
    if (!chain.is_dropped[i]) continue;
    const std::string& name =
        given.method.operators[static_cast<size_t>(given.method.chains[0][i].index)];
    CAPTURE(name);
    CHECK((name == "executorch_prim::et_view.default" || name == "aten::slice_copy.Tensor_out" ||
           name == "aten::squeeze_copy.dims_out"));
  }
  const std::vector<int32_t>& after = chain.new_args.at(call);
  REQUIRE(after.size() == before.size());
  for (const RotaryPart& part :
       given.method.delegates[static_cast<size_t>(given.method.chains[0][call].index)].rotary) {
    CHECK(after[part.even] == after[part.odd]);
    const std::vector<int32_t>& from = given.tensor(after[part.even]).sizes;
    const std::vector<int32_t>& to = given.tensor(after[part.output]).sizes;
    CHECK(from.back() == part.heads * part.pairs * 2);
    CHECK(to == std::vector<int32_t>{1, 15, static_cast<int32_t>(part.heads),
                                     static_cast<int32_t>(part.pairs * 2)});
    CHECK(after[part.cosine] == before[part.cosine]);
    CHECK(after[part.sine] == before[part.sine]);
  }
}

TEST_CASE("a chain stays whole around a rotary embedding where that cannot be proved equal") {
  Method given;
  const size_t call = given.find_rotary();
  const size_t slice = given.find("aten::slice_copy.Tensor_out", 2);  // the first two cut tables
  const size_t squeeze = given.find("aten::squeeze_copy.dims_out");
  const size_t update = given.find("llama::update_cache.out");
  const int32_t base = shorten_chain(given.method).new_args.at(call)[0];
  const int32_t result = shorten_chain(given.method).new_args.at(call)[6];
  REQUIRE(update < call);
  REQUIRE(update < squeeze);

  SUBCASE("another instruction reads a slice") {
    given.method.chains[0].back().args.push_back(given.args(slice).back());
  }
  SUBCASE("it is an output of the method") {
    given.method.outputs.push_back(given.args(squeeze).back());
  }
  SUBCASE("the slice begins elsewhere") { std::swap(given.args(slice)[2], given.args(slice)[3]); }
  SUBCASE("its step is another") {
    given.method.values[static_cast<size_t>(given.args(slice)[4])].integer = 2;
  }
  SUBCASE("an instruction makes the slice's begin") {
    given.args(update).back() = given.args(slice)[2];
  }
  SUBCASE("both halves are the same") { given.args(call)[0] = given.args(call)[3]; }
  SUBCASE("what lies between writes where the input lies") {
    given.tensor(given.args(update).back()).memory_offset = given.tensor(base).memory_offset;
  }
  SUBCASE("the result would lie in what a later part reads") {
    const int32_t key = shorten_chain(given.method).new_args.at(call)[4];
    const int32_t before = given.args(call)[6];
    given.tensor(result).memory_offset = given.tensor(key).memory_offset;
    given.tensor(before).memory_offset = given.tensor(key).memory_offset;
  }
  SUBCASE("the view of the result lies elsewhere") { given.tensor(result).memory_offset += 16; }
  SUBCASE("the view is of more rows") {
    const size_t view = given.find("executorch_prim::et_view.default", 5);
    auto& sizes = given.method.values[static_cast<size_t>(given.args(view)[1])];
    sizes.items[0] = sizes.items[1];
  }
  SUBCASE("the input is no float") { given.tensor(base).scalar_type = 5; }
  SUBCASE("the delegate is called twice") {
    given.method.chains[0].push_back(given.method.chains[0][call]);
  }
  CHECK(num_rotary(given.method) == 1);
}

TEST_CASE("an input that was taken apart long before stays as it is: the search has a bound") {
  Method given;
  auto& chain = given.method.chains[0];
  ProgramInstruction idle = chain[given.find("llama::update_cache.out")];
  idle.args.clear();
  const auto insert = [&](size_t count) {
    chain.insert(chain.begin() + static_cast<std::ptrdiff_t>(given.find_rotary()), count, idle);
  };

  insert(100);
  CHECK(num_rotary(given.method) == 2);
  insert(kMostBetween);
  CHECK(num_rotary(given.method) == 1);
}

TEST_CASE("methods with jumps, several chains or none keep their chain") {
  Method given;
  SUBCASE("a jump") { given.method.chains[0].back().kind = InstructionKind::kJumpFalse; }
  SUBCASE("a move") { given.method.chains[0].back().kind = InstructionKind::kMove; }
  SUBCASE("two chains") { given.method.chains.push_back({}); }
  SUBCASE("none") { given.method.chains.clear(); }
  CHECK(shorten_chain(given.method).is_dropped.empty());
}

ProgramPatch patch_of(const ProgramInfo& program) {
  ProgramPatch patch{"OurBackend", {}, {}};
  for (const ProgramMethod& method : program.methods) {
    patch.chains.push_back(shorten_chain(method));
    patch.is_renamed.emplace_back(method.delegates.size());
    for (const size_t d : patch.chains.back().rotary_delegates) patch.is_renamed.back()[d] = true;
  }
  return patch;
}

TEST_CASE("a patched copy has the shorter chain, and new names where they were wanted") {
  const ProgramInfo before = program();
  const ProgramCopy copy = patch_program(file().data(), before, patch_of(before));
  REQUIRE(copy.data != nullptr);
  const ProgramInfo after = read_program(copy.data.get(), copy.size, before.file_bytes);
  const ProgramMethod& method = *after.find("forward");

  CHECK(method.chains[0].size() == 83 - 24);
  CHECK(std::count_if(method.delegates.begin(), method.delegates.end(),
                      [](const auto& delegate) { return delegate.id == "OurBackend"; }) == 2);
  const ProgramMethod& original = *before.find("forward");
  for (size_t i = 0; i < 20; ++i) CHECK(method.chains[0][i].args == original.chains[0][i].args);
  CHECK(method.chains[0].back().args == original.chains[0].back().args);
}

TEST_CASE("there is no copy of a program whose tables lie in each other") {
  const ProgramInfo before = program();
  ProgramPatch patch = patch_of(before);
  // As if the name of a delegate lay where the first of its own bytes of memory is told.
  ProgramInfo tangled = before;
  auto& delegates = tangled.methods[0].delegates;
  const auto rotary = std::find_if(delegates.begin(), delegates.end(),
                                   [](const auto& delegate) { return !delegate.rotary.empty(); });
  REQUIRE(rotary != delegates.end());
  rotary->id_at = delegates[0].id_at;
  CHECK(patch_program(file().data(), tangled, patch).data == nullptr);
}

}  // namespace
