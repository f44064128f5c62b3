// Folders of transformers' exporter, whose programs keep nothing between calls: the cache is ours.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "et/et_folder.h"
#include "model/convert.h"

using namespace emm;

namespace {

using Ids = std::vector<int64_t>;

const std::vector<std::string> kTensors = {
    "cache.layers.0.keys", "cache.layers.0.values", "cache.layers.0.cumulative_length",
    "cache.layers.1.keys", "cache.layers.1.values", "cache.layers.1.cumulative_length"};

std::vector<std::string> joined(std::vector<std::string> names,
                                const std::vector<std::string>& more) {
  names.insert(names.end(), more.begin(), more.end());
  return names;
}

std::vector<std::string> without_lengths(const std::vector<std::string>& names) {
  std::vector<std::string> kept;
  for (const std::string& name : names) {
    if (name.find("cumulative") == std::string::npos) kept.push_back(name);
  }
  return kept;
}

// What export.json in tests/models/export_folders says; Python reads it, and is not here.
LoadOptions llama() {
  const std::string folder = std::string(EMM_SOURCE_DIR) + "/tests/models/export_folders/llama/";
  const std::vector<std::string> outputs = joined({"logits"}, kTensors);
  LoadOptions options;
  options.num_threads = 1;
  options.folder.max_cache_len = 48;
  options.folder.eos_ids = {2};
  options.folder.parts = {{"prefill",
                           folder + "prefill.pte",
                           {"input_ids", "position_ids", kTensors[2], kTensors[5]},
                           outputs,
                           {{1, 4}, {1, 4}, {}, {}}},
                          {"decode",
                           folder + "decode.pte",
                           joined({"input_ids", "attention_mask", "position_ids"}, kTensors),
                           outputs,
                           {{1, 2}, {1, 1, 2, 48}, {1, 2}, {}, {}, {}, {}, {}, {}}}};
  return options;
}

// One whose cache is longer after each call.
LoadOptions gpt2() {
  const std::string folder = std::string(EMM_SOURCE_DIR) + "/tests/models/export_folders/gpt2/";
  const std::vector<std::string> tensors = without_lengths(kTensors);
  LoadOptions options;
  options.num_threads = 1;
  options.folder.max_cache_len = 64;
  options.folder.parts = {{"prefill",
                           folder + "prefill.pte",
                           {"input_ids", "position_ids"},
                           joined({"logits"}, tensors),
                           {{1, 4}, {1, 4}}},
                          {"decode",
                           folder + "decode.pte",
                           joined(joined({"input_ids"}, tensors), {"position_ids"}),
                           joined({"logits"}, tensors),
                           {{1, 2}, {}, {}, {}, {}, {1, 2}}}};
  return options;
}

int64_t likeliest(const TensorView& logits) {
  std::vector<uint8_t> buffer;
  const TensorView floats = convert(logits, DType::kFloat32, buffer, "logits");
  const auto* values = static_cast<const float*>(floats.data);
  return std::max_element(values, values + floats.size()) - values;
}

struct Conversation {
  explicit Conversation(const LoadOptions& options) : folder(options) {}

  // The likeliest tokens behind a prompt; the last one is not read.
  Ids answer(const Ids& prompt, size_t count) {
    Ids made = {read(prompt)};
    while (made.size() < count) made.push_back(read({made.back()}));
    return made;
  }
  int64_t read(const Ids& ids) {
    const auto num_tokens = static_cast<int64_t>(ids.size());
    const int64_t token = likeliest(folder.decode_tokens(ids.data(), num_tokens, position));
    position += num_tokens;
    return token;
  }

  EtFolder folder;
  int64_t position = 0;
};

// Greedy tokens of transformers' `generate`: expected.json beside each export.json.
const Ids kPrompt = {1, 5, 9, 4};
const Ids kLlama = {4, 4, 3, 5, 1, 12, 50, 0};
const Ids kLlamaSecond = {3, 43, 62, 60, 32, 44, 20, 47};
const Ids kGpt2 = {32, 32, 32, 32, 32, 32, 32, 32};
const Ids kGpt2Second = {53, 53, 46, 58, 53, 2, 2, 53};

std::string refusal(const LoadOptions& options, ErrorCode code) {
  try {
    const EtFolder folder(options);
  } catch (const Error& error) {
    CHECK(error.code() == code);
    return error.what();
  }
  FAIL("not refused");
  return "";
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("two turns give transformers' tokens, again after a reset") {
  for (const bool grows : {false, true}) {
    CAPTURE(grows);
    Conversation talk(grows ? gpt2() : llama());
    for (int round = 0; round < 2; ++round) {
      CHECK(talk.answer(kPrompt, 8) == (grows ? kGpt2 : kLlama));
      const Ids last = {(grows ? kGpt2 : kLlama).back(), 33, 17};
      CHECK(talk.answer(last, 8) == (grows ? kGpt2Second : kLlamaSecond));
      talk.folder.reset_state();
      talk.position = 0;
    }
  }
}

TEST_CASE("a prompt may be read in pieces, and an earlier position comes back") {
  for (const bool grows : {false, true}) {
    CAPTURE(grows);
    Conversation talk(grows ? gpt2() : llama());
    const Ids& expected = grows ? kGpt2 : kLlama;
    talk.read({1, 5});
    CHECK(talk.answer({9, 4}, 8) == expected);
    talk.position = 3;
    CHECK(talk.answer({4}, 8) == expected);
  }
}

TEST_CASE("a saved conversation comes back, from memory and from its bytes") {
  for (const bool grows : {false, true}) {
    CAPTURE(grows);
    Conversation talk(grows ? gpt2() : llama());
    const Ids& expected = grows ? kGpt2 : kLlama;
    talk.read({1, 5, 9});
    const auto saved = talk.folder.save_state(3);
    std::vector<uint8_t> bytes;
    for (const ByteSpan& span : saved->spans()) {
      CHECK(span.size > 0);
      bytes.insert(bytes.end(), span.data, span.data + span.size);
    }
    CHECK(bytes.size() == saved->size_bytes());
    talk.folder.reset_state();
    talk.position = 0;
    talk.answer({7, 8, 9, 10}, 4);
    talk.folder.restore_state(*saved);
    talk.position = 3;
    CHECK(talk.answer({4}, 8) == expected);

    Conversation other(grows ? gpt2() : llama());
    CHECK_THROWS_WITH_AS(other.folder.restore_state(*saved),
                         "snapshot: it was not made by this model", Error);
    CHECK_THROWS_AS(other.folder.load_state(4, {bytes.data(), bytes.size()}), Error);
    other.folder.load_state(3, {bytes.data(), bytes.size()});
    other.position = 3;
    CHECK(other.answer({4}, 8) == expected);
  }
}

TEST_CASE("steps copy nothing of a cache that the program leaves to us") {
  Conversation talk(llama());
  talk.read(kPrompt);
  const int64_t before = talk.folder.copied_input_bytes();
  talk.read({4});
  talk.read({4});
  CHECK(talk.folder.copied_input_bytes() == before);
}

TEST_CASE("rows of logits belong to the last tokens of a call") {
  Conversation talk(llama());
  talk.read({1});
  const Ids ids = {5, 9, 4};
  const TensorView rows = talk.folder.decode_rows(ids.data(), 3, 1, 2, false);
  CHECK(rows.shape == Shape{2, 64});
  CHECK(likeliest(row_range(rows, 1, 1)) == kLlama[0]);
}

TEST_CASE("options that a folder has no use for are refused") {
  LoadOptions options = llama();
  options.data_paths = {"a.ptd"};
  CHECK(has(refusal(options, ErrorCode::kInput), "data_path: an export folder keeps no weights"));
  options = llama();
  options.kv_cache_dtype = "int8";
  CHECK(has(refusal(options, ErrorCode::kInput), "kv_cache_dtype: an export folder's programs"));
  options = llama();
  options.method = "prefill";
  CHECK(has(refusal(options, ErrorCode::kInput), "method: expected one of decode, got prefill"));
  options = llama();
  options.max_context_len = 49;
  CHECK(has(refusal(options, ErrorCode::kInput), "max_context_len"));
}

TEST_CASE("programs that are not what export.json says are refused with their names") {
  LoadOptions options = llama();
  std::swap(options.folder.parts[0].path, options.folder.parts[1].path);
  CHECK(has(refusal(options, ErrorCode::kContract), "in_spec names 4 inputs, the program takes 9"));
  options = llama();
  options.folder.parts.pop_back();
  CHECK(has(refusal(options, ErrorCode::kContract), "expected a component decode"));
  options = llama();
  options.folder.parts[1].inputs[0] = "tokens";
  CHECK(has(refusal(options, ErrorCode::kContract), "decode: input 0 (tokens)"));
  options = llama();
  options.folder.parts[1].path += ".missing";
  CHECK(has(refusal(options, ErrorCode::kLoad), "decode.pte.missing"));
}
