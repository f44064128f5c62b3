// What a cache that is not in the graph must look like, from the calls that use it.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "base/error.h"
#include "method_builder.h"
#include "model/cache_kind.h"
#include "model/contract_reader.h"
#include "model/outer_cache.h"

using namespace emm;

namespace {

struct Call {
  int64_t layer = 0;
  std::vector<int32_t> key = {1, 2, 15, 8};
  std::vector<int32_t> value = {1, 2, 15, 8};
};

// forward(tokens [1, 15], positions [15]) -> logits [1, 15, 64]
ProgramMethod decoder(const std::vector<Call>& calls, bool has_positions = true) {
  Builder b;
  const int32_t tokens = b.tensor({1, 15}, kLong);
  const int32_t positions = b.tensor({has_positions ? 15 : 1}, kLong);
  const int32_t logits = b.tensor({1, 15, 64});
  for (ProgramTensor& tensor : b.method().tensors) tensor.is_dynamic = true;
  for (const Call& call : calls) {
    const int32_t out = b.tensor({1, 4, 15, 8});
    b.call("kvcache::update_and_attend.out",
           {b.tensor({1, 4, 15, 8}), b.tensor(call.key), b.tensor(call.value), positions,
            b.integer(call.layer), b.integer(1), b.integer(6), out, out});
  }
  b.input(tokens);
  b.input(positions);
  b.method().outputs.push_back(logits);
  b.method().name = "forward";
  b.method().arena_bytes = {0, 1 << 20};
  return b.method();
}

ProgramMethod constant(const std::string& name, const std::vector<int64_t>& numbers) {
  Builder b;
  for (const int64_t number : numbers) b.method().outputs.push_back(b.integer(number));
  b.method().name = name;
  b.method().arena_bytes = {0};
  return b.method();
}

ProgramInfo program_of(const std::vector<ProgramMethod>& methods) {
  ProgramInfo program;
  program.methods = methods;
  program.methods.push_back(constant("get_max_context_len", {100}));
  return program;
}

std::string refusal(const ProgramInfo& program, const ContractRequest& request = {}) {
  try {
    read_contract(program, request);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("layers, sizes and room follow from the calls and the metadata") {
  const ProgramInfo program = program_of({decoder({{1}, {0, {1, 4, 15, 16}, {1, 4, 15, 5}}})});
  const Contract contract = read_contract(program);
  REQUIRE(contract.outer_cache.layers.size() == 2);
  CHECK(contract.outer_cache.layers[0].heads == 4);
  CHECK(contract.outer_cache.layers[0].key_size == 16);
  CHECK(contract.outer_cache.layers[0].value_size == 5);
  CHECK(contract.outer_cache.layers[1].key_size == 8);
  CHECK(contract.outer_cache.dtype == DType::kFloat32);
  CHECK(contract.capacity == 100);
  CHECK(contract.max_chunk == 15);
  CHECK(contract.max_batch_tokens == 15);
  CHECK(contract.is_state_shared);
  CHECK(contract.cache.ring_rows == 0);
  CHECK(find_cache_kind(program.methods[0]).name() == "outer");
  CHECK(read_contract(program, {"", 5000, ""}).capacity == 5000);
  CHECK(read_contract(program, {"", 0, "int8"}).outer_cache.dtype == DType::kInt8);
}

TEST_CASE("windows make rings, whose rewinds are as long as a call or a window") {
  const ProgramInfo program =
      program_of({decoder({{0}, {1}, {2}}), constant("get_windows", {0, 40, 30})});
  const Contract contract = read_contract(program);
  CHECK(contract.outer_cache.layers[0].window == 0);
  CHECK(contract.outer_cache.layers[1].window == 40);
  CHECK(contract.cache.ring_window == 30);
  CHECK(contract.cache.ring_rows == 30 + 30 - 1);
  CHECK(contract.outer_cache.saved_rows(contract.outer_cache.layers[0], 90) == 90);
  CHECK(contract.outer_cache.saved_rows(contract.outer_cache.layers[2], 90) == 59);
  CHECK(contract.outer_cache.saved_rows(contract.outer_cache.layers[2], 9) == 9);
}

TEST_CASE("upstream's names for context and chunk count") {
  ProgramInfo program;
  program.methods = {decoder({{0}}), constant("get_max_ctx_len", {70}),
                     constant("get_prefill_chunk_size", {4})};
  const Contract contract = read_contract(program);
  CHECK(contract.capacity == 70);
  CHECK(contract.max_chunk == 4);
}

TEST_CASE("one sequence at a time where positions are not given for each token") {
  CHECK(read_contract(program_of({decoder({{0}}, false)})).max_batch_tokens == 1);
}

TEST_CASE("calls that no cache can serve are refused with the place") {
  const auto refused = [](const Call& call) { return refusal(program_of({decoder({{0}, call})})); };
  CHECK(refused({-1}).find("layer -1 of the cache: expected a number from 0") != std::string::npos);
  CHECK(refused({int64_t{1} << 40}).find("expected a number from 0 to 4095") != std::string::npos);
  CHECK(refused({1, {8, 2, 1, 8}, {8, 2, 1, 8}}).find("expected a batch of 1, got 8") !=
        std::string::npos);
  CHECK(refused({1, {1, 0, 15, 8}, {1, 0, 15, 8}}).find("elements of key or value") !=
        std::string::npos);
  CHECK(refused({1, {1, 1 << 13, 15, 1 << 13}}).find("elements of key or value") !=
        std::string::npos);
  CHECK(refused({1, {1, 2, 8}}).find("four dimensions") != std::string::npos);
  CHECK(refused({1, {1, 2, 15, 8}, {1, 3, 15, 8}}).find("as many heads") != std::string::npos);
  CHECK(refused({0, {1, 2, 15, 16}}).find("the same heads in all calls") != std::string::npos);
}

TEST_CASE("windows that do not fit the layers are refused") {
  for (const std::vector<int64_t>& wrong :
       {std::vector<int64_t>{}, {1}, {0, -1}, {0, int64_t{1} << 40}, {1, 2, 3}}) {
    const std::string message =
        refusal(program_of({decoder({{0}, {1}}), constant("get_windows", wrong)}));
    CHECK(message.find("get_windows: expected a list of 2 ints") != std::string::npos);
  }
}

TEST_CASE("a dtype of rows that is none, and one for a program with its own cache, are refused") {
  CHECK(refusal(program_of({decoder({{0}})}), {"", 0, "int4"})
            .find("kv_cache_dtype: expected float32") != std::string::npos);
  CHECK(refusal(program_of({decoder({})}), {"", 0, "int8"})
            .find("forward has its cache in the graph") != std::string::npos);
}

namespace {

struct Sources {
  std::string reader = "executorch_mm::cross_attend.out";
  std::vector<int32_t> shape = {1, 50, 4, 8};
  bool is_planned = false;
  bool in_a_list = false;
};

// encoder(features) -> keys, values; text_decoder(tokens, keys, values, positions) -> logits
ProgramInfo speech_program(const Sources& sources, bool has_positions = true) {
  Builder e;
  e.input(e.tensor({1, 80, 100}));
  for (int i = 0; i < 2; ++i) e.method().outputs.push_back(e.tensor(sources.shape));
  e.method().name = "encoder";
  e.method().arena_bytes = {0, 1 << 20};
  Builder b;
  const int32_t tokens = b.tensor({1, 15}, kLong);
  const int32_t keys = b.tensor(sources.shape);
  const int32_t values = b.tensor(sources.shape);
  const int32_t positions = b.tensor({has_positions ? 15 : 1}, kLong);
  const int32_t logits = b.tensor({1, 15, 64});
  for (ProgramTensor& tensor : b.method().tensors) tensor.is_dynamic = true;
  for (const int32_t source : {keys, values}) {
    ProgramTensor& tensor = b.method().tensors[b.method().values[source].tensor];
    tensor.is_planned = sources.is_planned;
    tensor.memory_id = 1;
  }
  const int32_t out = b.tensor({1, 4, 15, 8});
  b.call("kvcache::update_and_attend.out",
         {b.tensor({1, 4, 15, 8}), b.tensor({1, 4, 15, 8}), b.tensor({1, 4, 15, 8}), positions,
          b.integer(0), b.integer(1), b.integer(6), out, out});
  const int32_t heard = b.tensor({1, 15, 4, 8});
  b.call("executorch_mm::cross_attend.out",
         {b.tensor({1, 15, 4, 8}), keys, values, b.integer(1), heard, heard});
  if (sources.in_a_list) {
    b.call("aten::cat.out", {b.tensors({keys}), b.integer(0), heard, heard});
  } else {
    b.call(sources.reader, {keys, b.integer(0), b.integer(1), heard, heard});
  }
  for (const int32_t input : {tokens, keys, values, positions}) b.input(input);
  b.method().outputs.push_back(logits);
  b.method().name = "text_decoder";
  b.method().arena_bytes = {0, 1 << 20};
  return program_of({e.method(), b.method()});
}

}  // namespace

TEST_CASE("windows share a call where cross_attend alone reads what the encoder made of them") {
  const Contract contract = read_contract(speech_program({}));
  CHECK(contract.kind == ModelKind::kSpeech);
  CHECK(contract.max_batch_tokens == 15);
  CHECK(read_contract(speech_program({}, false)).max_batch_tokens == 1);
  CHECK(read_contract(speech_program({"executorch_mm::cross_weights.out"})).max_batch_tokens == 15);
}

TEST_CASE("what the encoder made, read by something else or planned, is refused with the place") {
  const auto refused = [](const Sources& sources) { return refusal(speech_program(sources)); };
  CHECK(refused({"aten::select_copy.int_out"})
            .find("text_decoder: input 1: expected executorch_mm::"
                  "cross_attend and cross_weights alone") != std::string::npos);
  Sources sources;
  sources.in_a_list = true;
  CHECK(refused(sources).find("got aten::cat.out") != std::string::npos);
  sources = {};
  sources.is_planned = true;
  CHECK(refused(sources).find("alloc_graph_input=False") != std::string::npos);
  sources = {};
  sources.shape = {2, 50, 4, 8};
  CHECK(refused(sources).find("expected (1, T, heads, size)") != std::string::npos);
}
