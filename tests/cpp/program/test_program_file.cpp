#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <vector>

#include "base/error.h"
#include "model/cache_kind.h"
#include "ops/kernels.h"
#include "program/op_signatures.h"
#include "program/program_check.h"

using emm::ProgramInfo;

namespace {

std::vector<uint8_t> read_file(const std::string& name) {
  std::ifstream file(std::string(EMM_SOURCE_DIR) + "/tests/models/text/" + name, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::string refusal(const std::vector<uint8_t>& file) {
  try {
    emm::check_program(file.data(), file.size(), "model");
  } catch (const emm::Error& error) {
    CHECK(error.code() == emm::ErrorCode::kLoad);
    return error.what();
  }
  return "";
}

// The file with the one place where `pattern` stands changed by `change`.
std::vector<uint8_t> changed(std::vector<uint8_t> file, const std::vector<uint8_t>& pattern,
                             const std::function<void(uint8_t*)>& change) {
  const auto found = std::search(file.begin(), file.end(), pattern.begin(), pattern.end());
  REQUIRE(found != file.end());
  change(&*found);
  return file;
}

std::vector<uint8_t> bytes_of(std::initializer_list<int32_t> numbers) {
  std::vector<uint8_t> bytes(numbers.size() * sizeof(int32_t));
  std::memcpy(bytes.data(), numbers.begin(), bytes.size());
  return bytes;
}

// Prefixed by its length, as a vector lies in a file.
std::vector<uint8_t> vector_of(const std::vector<int32_t>& numbers) {
  std::vector<uint8_t> bytes = bytes_of({static_cast<int32_t>(numbers.size())});
  bytes.resize(sizeof(int32_t) * (numbers.size() + 1));
  std::memcpy(bytes.data() + sizeof(int32_t), numbers.data(), numbers.size() * sizeof(int32_t));
  return bytes;
}

const emm::ProgramInstruction& first_call(const emm::ProgramMethod& method, const std::string& op) {
  for (const auto& instruction : method.chains[0]) {
    if (instruction.kind == emm::InstructionKind::kKernel &&
        method.operators[static_cast<size_t>(instruction.index)] == op)
      return instruction;
  }
  FAIL("no call of ", op);
  return method.chains[0][0];
}

void set_int(uint8_t* place, size_t index, int32_t value) {
  std::memcpy(place + index * sizeof value, &value, sizeof value);
}

}  // namespace

TEST_CASE("a good file passes and says what it holds") {
  const auto file = read_file("start.pte");
  const ProgramInfo program = emm::check_program(file.data(), file.size(), "model");
  REQUIRE(program.find("forward") != nullptr);
  const emm::ProgramMethod& forward = *program.find("forward");
  CHECK(forward.inputs.size() == 2);
  CHECK(forward.arena_bytes == std::vector<int64_t>{0, 31520});
  CHECK(program.file_bytes == file.size());
  CHECK(emm::find_cache_kind(forward).name() == "flat");
  CHECK(program.find("backward") == nullptr);
}

TEST_CASE("a file cut anywhere in its structure is refused, and not read beyond its end") {
  const auto file = read_file("one_token.pte");
  for (size_t size = 0; size < 26880; size += 97) {
    // A copy of this size, so that the sanitizer sees a read beyond it.
    const std::vector<uint8_t> cut(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(size));
    CHECK(refusal(cut) != "");
  }
}

TEST_CASE("what a kernel would take as it comes is refused with its place") {
  const auto file = read_file("start.pte");
  const ProgramInfo program = emm::read_program(file.data(), file.size());
  const emm::ProgramMethod& forward = *program.find("forward");
  const auto sum = vector_of(first_call(forward, "aten::add.out").args);
  const auto with_argument = [&](size_t index, int32_t value) {
    return refusal(changed(file, sum, [&](uint8_t* at) { set_int(at, index + 1, value); }));
  };
  SUBCASE("an argument that does not exist") {
    CHECK(with_argument(0, 100000).find("argument 100000 is not one of") != std::string::npos);
    CHECK(with_argument(0, -1).find("argument -1 is not one of") != std::string::npos);
  }
  SUBCASE("a number where a tensor is wanted") {
    const std::string message = with_argument(0, 34);  // an int, read by sym_size
    CHECK(message.find("aten::add.out: argument 34 is an int") != std::string::npos);
  }
  SUBCASE("a constant as output") {
    const int32_t constant = 0;  // the embedding's table
    CHECK(forward.tensor(constant)->data_index != 0);
    CHECK(with_argument(3, constant).find("writes into the constant") != std::string::npos);
  }
  SUBCASE("too few arguments") {
    const auto short_call = changed(file, sum, [](uint8_t* at) { set_int(at, 0, 4); });
    CHECK(refusal(short_call).find("expected 5 arguments, got 4") != std::string::npos);
  }
}

TEST_CASE("sizes that do not fit their memory are refused") {
  const auto file = read_file("start.pte");
  // The embedding's output, (1, 15, 32) floats.
  const auto sizes = vector_of({1, 15, 32});
  const auto with_size = [&](int32_t size) {
    return refusal(changed(file, sizes, [&](uint8_t* at) { set_int(at, 2, size); }));
  };
  CHECK(with_size(1 << 20).find("lie outside of it") != std::string::npos);
  CHECK(with_size(-15).find("a negative size") != std::string::npos);
}

TEST_CASE("every signature is found by its name, and no other") {
  const auto add = emm::op_signature("aten::add.out");
  REQUIRE(add.has_value());
  CHECK(add->num_args() == 5);
  CHECK(add->is_output(3));
  CHECK(add->is_output(4));
  CHECK_FALSE(add->is_output(0));
  CHECK_FALSE(emm::op_signature("aten::index_put_")->is_output(0));
  CHECK_FALSE(emm::op_signature("aten::add.ou").has_value());
  CHECK_FALSE(emm::op_signature("").has_value());
}

TEST_CASE("each of our operators has a signature") {
  for (const auto& kernel : emm::ops::llm_kernels())
    CHECK_MESSAGE(emm::op_signature(kernel.name_).has_value(), kernel.name_);
}
