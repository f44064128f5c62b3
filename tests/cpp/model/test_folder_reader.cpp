// What the programs of an export folder promise together.
#include <doctest/doctest.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "method_builder.h"
#include "model/folder_reader.h"

using namespace emm;

namespace {

constexpr int8_t kBool = 11;
constexpr int32_t kRows = 48;
constexpr int32_t kTokens = 8;
constexpr int32_t kVocabulary = 64;

// A folder with its programs, as transformers writes them for one layer with a static cache.
struct Export {
  ExportFolder folder;
  std::vector<ProgramInfo> programs;

  FolderPart& names(const std::string& name) {
    for (FolderPart& part : folder.parts) {
      if (part.name == name) return part;
    }
    FAIL("no part ", name);
    return folder.parts[0];
  }
  ProgramMethod& method(const std::string& name) {
    return programs[static_cast<size_t>(&names(name) - folder.parts.data())].methods[0];
  }
  ProgramTensor& input(const std::string& name, size_t index) {
    ProgramMethod& found = method(name);
    return found.tensors[found.values[static_cast<size_t>(found.inputs[index])].tensor];
  }
  ProgramTensor& output(const std::string& name, size_t index) {
    ProgramMethod& found = method(name);
    return found.tensors[found.values[static_cast<size_t>(found.outputs[index])].tensor];
  }
  void add(const std::string& name, ProgramMethod program, std::vector<std::string> inputs,
           std::vector<std::string> outputs) {
    program.name = "forward";
    std::vector<Shape> shapes(inputs.size());
    folder.parts.push_back({name, name + ".pte", std::move(inputs), std::move(outputs), shapes});
    programs.emplace_back();
    programs.back().methods = {std::move(program)};
  }
  FolderContract read(int64_t max_context_len = 0) const {
    return read_folder(folder, programs, max_context_len);
  }
};

ProgramMethod with_dynamic(Builder b, const std::vector<size_t>& tensors) {
  for (const size_t tensor : tensors) b.method().tensors[tensor].is_dynamic = true;
  return b.method();
}

// decode(ids, mask, positions, keys, values) -> logits, with the cache changed in place.
Export text_model() {
  Builder b;
  const int32_t ids = b.tensor({1, kTokens}, kLong);
  const int32_t mask = b.tensor({1, 1, kTokens, kRows}, kBool);
  const int32_t positions = b.tensor({1, kTokens}, kLong);
  const int32_t keys = b.tensor({1, 2, kRows, 4});
  const int32_t values = b.tensor({1, 2, kRows, 4});
  const int32_t logits = b.tensor({1, kTokens, kVocabulary});
  for (const int32_t input : {ids, mask, positions, keys, values}) b.input(input);
  b.method().outputs = {keys, values, logits};
  Export made;
  made.folder.max_cache_len = kRows;
  made.folder.eos_ids = {2};
  made.add("decode", with_dynamic(b, {0, 1, 2, 5}),
           {"input_ids", "attention_mask", "position_ids", "cache.layers.0.keys",
            "cache.layers.0.values"},
           {"logits"});
  made.folder.parts[0].shapes[1] = {1, 1, 2, kRows};
  return made;
}

// prefill(ids) -> logits, keys, values.
Export with_prefill() {
  Export made = text_model();
  Builder b;
  b.input(b.tensor({1, kRows}, kLong));
  b.method().outputs = {b.tensor({1, kRows, kVocabulary}), b.tensor({1, 2, kRows, 4}),
                        b.tensor({1, 2, kRows, 4})};
  made.add("prefill", with_dynamic(b, {0, 1}), {"input_ids"},
           {"logits", "past_key_values.layers.0.keys", "past_key_values.layers.0.values"});
  return made;
}

std::string refusal(const Export& made, int64_t max_context_len = 0,
                    ErrorCode code = ErrorCode::kContract) {
  try {
    made.read(max_context_len);
  } catch (const Error& error) {
    CHECK(error.code() == code);
    return error.what();
  }
  FAIL("not refused");
  return "";
}

std::string refusal_of(const std::function<void(Export&)>& change) {
  Export made = with_prefill();
  change(made);
  return refusal(made);
}

bool has(const std::string& text, const char* part) {
  INFO(text);
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("a decoder with its cache is a text model with the cache's rows as capacity") {
  const FolderContract found = text_model().read();
  CHECK(found.contract.kind == ModelKind::kText);
  CHECK(found.contract.decoder_name == "decode");
  CHECK(found.contract.capacity == kRows);
  CHECK(found.contract.max_chunk == kTokens);
  CHECK(found.contract.vocab_size == kVocabulary);
  CHECK(found.contract.eos_ids == std::vector<int64_t>{2});
  CHECK(found.contract.position_style == PositionStyle::kStart);
  REQUIRE(found.cache.size() == 2);
  CHECK(found.cache[0].name == "layers.0.keys");
  CHECK(found.cache[0].is_in_place);
  CHECK_FALSE(found.cache[0].grows);
  CHECK(found.cache[0].rows() == kRows);
  std::vector<Feed> feeds;
  for (const PartInput& input : found.decode.inputs) feeds.push_back(input.feed);
  CHECK(feeds ==
        std::vector<Feed>{Feed::kIds, Feed::kMask, Feed::kPositions, Feed::kCache, Feed::kCache});
  CHECK(found.decode.inputs[1].keys == kRows);
  CHECK(found.decode.result == 2);
  // Of heads 2, rows of 4 floats each.
  REQUIRE(found.contract.state.size() == 2);
  CHECK(found.contract.state[0].bytes_of(3) == 2 * 3 * 4 * 4);
}

TEST_CASE("the caller and the folder may ask for less than the cache holds, not for more") {
  CHECK(text_model().read(20).contract.capacity == 20);
  Export small = text_model();
  small.folder.max_cache_len = 30;
  CHECK(small.read().contract.capacity == 30);
  CHECK(has(refusal(text_model(), kRows + 1, ErrorCode::kInput), "max_context_len"));
}

TEST_CASE("what prefill gives is what decode takes") {
  Export one_by_one = with_prefill();
  for (const size_t index : {0, 2}) one_by_one.input("decode", index).sizes = {1, 1};
  one_by_one.input("decode", 1).sizes = {1, 1, 1, kRows};
  one_by_one.names("decode").shapes[1] = {1, 1, 1, kRows};
  one_by_one.output("decode", 2).sizes = {1, 1, kVocabulary};
  const FolderContract found = one_by_one.read();
  REQUIRE(found.prefill);
  CHECK(found.contract.max_chunk == 1);
  CHECK(found.contract.first_chunk == kRows);
  CHECK(found.prefill->result == 0);
  CHECK(found.prefill->cache_outputs == std::vector<std::optional<size_t>>{1, 2});
  // A decoder that reads prompts itself does so.
  CHECK_FALSE(with_prefill().read().prefill);
  CHECK(has(refusal_of([](Export& made) { made.output("prefill", 1).sizes[2] = kRows - 1; }),
            "decode takes 48 rows, prefill gives 47"));
  CHECK(has(refusal_of([](Export& made) { made.output("prefill", 1).sizes[3] = 5; }),
            "prefill: output layers.0.keys: expected float32 (1, 2, 48, 4) as decode takes it"));
  CHECK(has(refusal_of([](Export& made) { made.names("prefill").outputs[2] = "other"; }),
            "prefill: expected an output layers.0.values, which decode takes"));
}

TEST_CASE("a cache that comes back longer grows by the tokens of a call") {
  Export made = with_prefill();
  ProgramMethod& decode = made.method("decode");
  // Not changed in place: keys and values of its own, one row more.
  const auto copied = [&] {
    ProgramTensor tensor = made.input("decode", 3);
    tensor.sizes[2] = kRows + kTokens;
    tensor.is_dynamic = true;
    tensor.memory_offset += 1 << 20;
    decode.tensors.push_back(tensor);
    ProgramValue value;
    value.kind = ValueKind::kTensor;
    value.tensor = decode.tensors.size() - 1;
    decode.values.push_back(value);
    return static_cast<int32_t>(decode.values.size()) - 1;
  };
  const int32_t logits = decode.outputs[2];
  const int32_t keys = copied();
  const int32_t values = copied();
  decode.outputs = {logits, keys, values};
  made.names("decode").outputs = {"logits", "cache.layers.0.keys", "cache.layers.0.values"};
  const FolderContract found = made.read();
  CHECK(found.prefill);  // decode cannot begin with nothing
  CHECK(found.cache[0].grows);
  CHECK_FALSE(found.cache[0].is_in_place);
  CHECK(found.decode.cache_outputs == std::vector<std::optional<size_t>>{1, 2});
}

TEST_CASE("parts that nobody can drive are refused with the input and what it has") {
  CHECK(has(refusal_of([](Export& made) { made.names("decode").name = "other"; }),
            "expected a component decode"));
  CHECK(has(refusal_of([](Export& made) { made.names("decode").inputs.pop_back(); }),
            "decode: export.json's in_spec names 4 inputs, the program takes 5"));
  CHECK(has(refusal_of([](Export& made) { made.names("decode").outputs = {"a", "b", "c", "d"}; }),
            "decode: export.json's out_spec names 4 outputs, the program gives 3"));
  CHECK(has(refusal_of([](Export& made) { made.input("decode", 0).scalar_type = kFloat; }),
            "decode: input 0 (input_ids): expected token ids (1, tokens), got float32 (1, 8)"));
  CHECK(has(refusal_of([](Export& made) { made.input("decode", 3).sizes[0] = 2; }),
            "decode: input 3 (cache.layers.0.keys): expected a cache (1, heads, rows, features)"));
  CHECK(has(refusal_of([](Export& made) { made.input("decode", 1).scalar_type = kFloat; }),
            "decode: input 1 (attention_mask): expected a mask"));
  CHECK(has(refusal_of([](Export& made) { made.input("decode", 0).is_dynamic = false; }),
            "decode: input 0 (input_ids): expected one token for each call or a dynamic length"));
  CHECK(has(refusal_of([](Export& made) { made.method("prefill").name = "run"; }),
            "prefill: expected a program with the method forward"));
  CHECK(
      has(refusal_of([](Export& made) { made.names("prefill").inputs[0] = "cache.layers.0.keys"; }),
          "prefill: input 0 (cache.layers.0.keys)"));
  CHECK(has(refusal_of([](Export& made) {
              FolderPart& decode = made.names("decode");
              decode.inputs[3] = "other_keys";
              decode.inputs[4] = "other_values";
            }),
            "decode: expected a cache among its inputs"));
}
