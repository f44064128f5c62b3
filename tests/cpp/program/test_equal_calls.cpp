// On export_llm's program with two layers: it takes the position out of an input once for the
// tables and four times for the caches and attention, and has a view of each table for each layer.
#include "program/equal_calls.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <ctime>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "program/program_patch.h"
#include "tested_method.h"

namespace {

using namespace emm;

constexpr const char* kSelect = "aten::select_copy.int_out";
constexpr const char* kNumber = "aten::_local_scalar_dense";
constexpr const char* kView = "executorch_prim::et_view.default";

size_t num_equal(const ProgramMethod& method) {
  ShortChain chain;
  return drop_equal_calls(method, chain);
}

TEST_CASE("what an earlier instruction has computed is not computed again") {
  const Method given;
  ShortChain chain;
  bool is_rotary_too = false;
  SUBCASE("alone") {}
  SUBCASE("after rotary embeddings") {
    chain = shorten_chain(given.method);
    is_rotary_too = true;
  }
  const ShortChain before = chain;

  CHECK(drop_equal_calls(given.method, chain) == 8);

  CHECK(chain.num_dropped() == 8 + before.num_dropped());
  CHECK(chain.rotary_delegates == before.rotary_delegates);
  std::map<std::string, int> dropped;
  for (size_t i = 0; i < chain.is_dropped.size(); ++i) {
    if (chain.is_dropped[i] && !(is_rotary_too && before.is_dropped[i]))
      ++dropped[given.method.operators[static_cast<size_t>(given.method.chains[0][i].index)]];
  }
  CHECK(dropped == std::map<std::string, int>{{kNumber, 3}, {kSelect, 3}, {kView, 2}});

  // All caches and both attentions get the number of the first; each rotary embedding the same
  // views; nobody uses what is not made any more.
  std::vector<int32_t> gone;
  for (size_t i = 0; i < chain.is_dropped.size(); ++i) {
    if (chain.is_dropped[i] && !(is_rotary_too && before.is_dropped[i]))
      gone.push_back(given.method.chains[0][i].args.back());
  }
  const auto args = [&](size_t i) {
    const auto found = chain.new_args.find(i);
    return found != chain.new_args.end() ? found->second : given.method.chains[0][i].args;
  };
  for (size_t i = 0; i < chain.is_dropped.size(); ++i) {
    if (chain.is_dropped[i]) continue;
    for (const int32_t arg : args(i)) CHECK(std::count(gone.begin(), gone.end(), arg) == 0);
  }
  const int32_t position = args(given.find("llama::update_cache.out"))[2];
  for (const int nth : {1, 2, 3})
    CHECK(args(given.find("llama::update_cache.out", nth))[2] == position);
  for (const int nth : {0, 1})
    CHECK(args(given.find("llama::custom_sdpa.out", nth))[3] == position);
}

TEST_CASE("an instruction stays where that cannot be proved equal") {
  Method given;
  // The first number is that of the tables, which is taken from another index of the input.
  const size_t select = given.find(kSelect, 2);
  const size_t number = given.find(kNumber, 2);
  const size_t view = given.find(kView, 1);
  const size_t attention = given.find("llama::custom_sdpa.out");
  size_t expected = 8;

  SUBCASE("the tables' index: equal to that") {
    given.method.values[static_cast<size_t>(given.args(select)[2])].integer = -1;
  }
  SUBCASE("an index of its own") {
    given.method.values[static_cast<size_t>(given.args(select)[2])].integer = 7;
    expected = 6;
  }
  SUBCASE("an instruction makes the index") {
    given.args(attention).back() = given.args(select)[2];
    expected = 6;
  }
  SUBCASE("the number is an output of the method") {
    given.method.outputs.push_back(given.args(number).back());
    expected = 6;
  }
  SUBCASE("the number is in a list") {
    given.method.values[static_cast<size_t>(given.args(view)[1])].items[0] =
        given.args(number).back();
    expected = 5;  // nor is the view equal to another one
  }
  SUBCASE("another instruction reads what was selected") {
    given.method.chains[0].back().args.push_back(given.args(select).back());
    expected = 6;
  }
  SUBCASE("what lies between writes where the number is selected to") {
    given.tensor(given.args(given.find(kSelect, 3)).back()).memory_offset =
        given.tensor(given.args(select).back()).memory_offset;
    expected = 4;  // of both
  }
  SUBCASE("something writes to the input") {
    given.args(given.find("aten::mean.out")).back() = given.args(select)[0];
    expected = 2;
  }
  SUBCASE("somebody has a view of the input") {
    given.args(given.find(kView, 4))[0] = given.args(select)[0];
    expected = 2;
  }
  SUBCASE("the input is planned") {
    given.tensor(given.args(select)[0]).is_planned = true;
    expected = 2;
  }
  SUBCASE("the view lies elsewhere") {
    given.tensor(given.args(view).back()).memory_offset += 16;
    expected = 7;
  }
  SUBCASE("the view has another shape") {
    given.tensor(given.args(view).back()).sizes[1] -= 1;
    expected = 7;
  }
  SUBCASE("the view's list has another number") {
    auto& list = given.method.values[static_cast<size_t>(given.args(view)[1])];
    given.method.values[static_cast<size_t>(list.items[0])].integer += 1;
    expected = 7;
  }
  SUBCASE("the view's list has a number that is made elsewhere") {
    auto& list = given.method.values[static_cast<size_t>(given.args(view)[1])];
    list.items[1] = given.args(given.find(kNumber)).back();
    expected = 7;
  }
  SUBCASE("a kernel writes to the view") {
    given.args(given.find("aten::mean.out", 1)).back() = given.args(view).back();
    expected = 7;
  }
  SUBCASE("a delegate of which nothing is known uses the view") {
    const size_t call = given.find_rotary();
    given.method.delegates[static_cast<size_t>(given.method.chains[0][call].index)].outputs.reset();
    expected = 6;  // of both tables
  }
  SUBCASE("the tensor that is shown is written between") {
    const size_t mean = given.find("aten::mean.out");
    std::swap(given.method.chains[0][mean], given.method.chains[0][view - 1]);
    given.args(view - 1).back() = given.args(view)[0];
    expected = 7;
  }
  CHECK(num_equal(given.method) == expected);
}

TEST_CASE("a file with very many of them is looked through in little time") {
  constexpr size_t kMany = 20'000;
  Method given;
  ProgramMethod& method = given.method;
  const auto again = [&](int32_t value) {
    ProgramValue copy = method.values[static_cast<size_t>(value)];
    if (copy.kind == ValueKind::kTensor) {
      method.tensors.push_back(method.tensors[copy.tensor]);
      copy.tensor = method.tensors.size() - 1;
      method.tensors.back().memory_offset += 1 << 20;
    }
    method.values.push_back(copy);
    return static_cast<int32_t>(method.values.size() - 1);
  };
  const auto call = [&](size_t like) {
    method.chains[0].push_back(method.chains[0][like]);
    return std::ref(method.chains[0].back().args);
  };
  const size_t select = given.find(kSelect, 2);
  const size_t number = given.find(kNumber, 2);
  const size_t view = given.find(kView, 1);
  size_t expected = 8;
  const auto begin = std::clock();
  SUBCASE("numbers, each next to where it is selected") {
    for (size_t i = 0; i < kMany; ++i) {
      const int32_t scalar = again(given.args(select).back());
      std::vector<int32_t>& selected = call(select);
      selected[3] = selected[4] = scalar;
      call(number).get() = {scalar, again(given.args(number).back())};
    }
    expected += 2 * kMany;
  }
  SUBCASE("numbers, all behind all that is selected") {
    std::vector<int32_t> scalars;
    for (size_t i = 0; i < kMany; ++i) {
      scalars.push_back(again(given.args(select).back()));
      std::vector<int32_t>& selected = call(select);
      selected[3] = selected[4] = scalars.back();
    }
    for (const int32_t scalar : scalars)
      call(number).get() = {scalar, again(given.args(number).back())};
  }
  SUBCASE("views, no two alike") {
    for (size_t i = 0; i < kMany; ++i) {
      const int32_t shown = again(given.args(view).back());
      given.tensor(shown).sizes[1] = static_cast<int32_t>(1000 + i);
      call(view).get().back() = shown;
    }
  }

  CHECK(num_equal(method) == expected);
  CHECK(static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC < 5);
}

TEST_CASE("methods with jumps, several chains or none keep theirs") {
  Method given;
  SUBCASE("a jump") { given.method.chains[0].back().kind = InstructionKind::kJumpFalse; }
  SUBCASE("two chains") { given.method.chains.push_back({}); }
  SUBCASE("none") { given.method.chains.clear(); }
  CHECK(num_equal(given.method) == 0);
}

TEST_CASE("a patched copy has the shorter chain") {
  const ProgramInfo before = program();
  ProgramPatch patch{"OurBackend", {}, {}};
  for (const ProgramMethod& method : before.methods) {
    drop_equal_calls(method, patch.chains.emplace_back(shorten_chain(method)));
    patch.is_renamed.emplace_back(method.delegates.size());
  }
  const ProgramCopy copy = patch_program(file().data(), before, patch);
  REQUIRE(copy.data != nullptr);
  const ProgramInfo after = read_program(copy.data.get(), copy.size, before.file_bytes);
  CHECK(after.find("forward")->chains[0].size() == 83 - 24 - 8);
}

}  // namespace
