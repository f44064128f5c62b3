#include "program/program_file.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "program/flat_buffer.h"

namespace emm {
namespace {

// Between the file identifier and the program: sizes that the schema does not hold.
constexpr size_t kHeaderOffset = 8;
constexpr size_t kHeaderFields = 24;        // magic, length, program size, segment base
constexpr size_t kHeaderWithSegments = 32;  // and the size of all segments

struct Header {
  uint64_t program_bytes;
  uint64_t segment_base = 0;
  uint64_t segment_bytes = 0;
};

Header read_header(const uint8_t* data, size_t size, uint64_t file_bytes) {
  FlatBuffer file(data, size, "program header");
  if (size < kHeaderOffset || std::memcmp(data + 4, "ET12", 4) != 0) {
    file.fail("expected the mark ET12 of an ExecuTorch program at offset 4");
  }
  if (size < kHeaderOffset + kHeaderFields || std::memcmp(data + kHeaderOffset, "eh00", 4) != 0)
    return {size};
  const uint32_t length = file.scalar<uint32_t>(kHeaderOffset + 4);
  if (length < kHeaderFields) file.fail("a length of " + std::to_string(length));
  Header header{file.scalar<uint64_t>(kHeaderOffset + 8),
                file.scalar<uint64_t>(kHeaderOffset + 16)};
  if (length >= kHeaderWithSegments)
    header.segment_bytes = file.scalar<uint64_t>(kHeaderOffset + 24);
  if (header.program_bytes > size || header.segment_base > file_bytes ||
      header.segment_bytes > file_bytes - header.segment_base) {
    file.fail("it says " + std::to_string(header.program_bytes) + " bytes of program and " +
              std::to_string(header.segment_bytes) + " of data from " +
              std::to_string(header.segment_base) + " on, the file has " +
              std::to_string(file_bytes));
  }
  return header;
}

ProgramTensor read_tensor(const FlatTable& table) {
  ProgramTensor tensor;
  tensor.scalar_type = table.scalar<int8_t>(0);
  tensor.storage_offset = table.scalar<int32_t>(1);
  tensor.sizes = table.scalars<int32_t>(2);
  tensor.dim_order = table.scalars<uint8_t>(3);
  tensor.data_index = table.scalar<uint32_t>(5);
  if (table.has(6)) {
    const FlatTable place = table.table(6);
    tensor.is_planned = true;
    tensor.memory_id = place.scalar<uint32_t>(0);
    tensor.memory_offset = place.scalar<uint32_t>(1) | uint64_t{place.scalar<uint32_t>(2)} << 32;
  }
  const auto dynamism = table.scalar<int8_t>(8);
  tensor.is_dynamic = dynamism == 1;
  tensor.is_unbound = dynamism != 0 && dynamism != 1;
  if (table.has(9)) {
    const FlatTable extra = table.table(9);
    tensor.name = extra.text(1);
    tensor.is_external = extra.scalar<int8_t>(2) == 1;
  }
  return tensor;
}

ProgramValue read_value(const FlatTable& table, std::vector<ProgramTensor>& tensors) {
  const auto type = table.scalar<uint8_t>(0);
  ProgramValue value;
  value.kind = static_cast<ValueKind>(type);
  if (value.kind == ValueKind::kNull) return value;
  if (type < 1 || type > static_cast<uint8_t>(ValueKind::kOptionalTensorList))
    table.buffer().fail("a value of unknown type " + std::to_string(type));
  const FlatTable content = table.table(1);
  switch (value.kind) {
    case ValueKind::kInt:
      value.integer = content.scalar<int64_t>(0);
      break;
    case ValueKind::kBool:
      value.integer = content.scalar<bool>(0) ? 1 : 0;
      break;
    case ValueKind::kDouble:
      value.real = content.scalar<double>(0);
      break;
    case ValueKind::kTensor:
      value.tensor = tensors.size();
      tensors.push_back(read_tensor(content));
      break;
    case ValueKind::kString:
      if (!content.has(0)) table.buffer().fail("a string that is missing");
      value.text = content.text(0);
      break;
    case ValueKind::kDoubleList:
      value.reals = content.scalars<double>(0);
      break;
    case ValueKind::kBoolList:
      value.items = content.scalars<bool, int64_t>(0);
      break;
    case ValueKind::kIntList:
      value.items = content.scalars<int64_t>(0);
      break;
    default:
      value.items = content.scalars<int32_t, int64_t>(0);
      break;
  }
  return value;
}

ProgramInstruction read_instruction(const FlatTable& table) {
  const auto type = table.scalar<uint8_t>(0);
  if (type < 1 || type > static_cast<uint8_t>(InstructionKind::kFree))
    table.buffer().fail("an instruction of unknown type " + std::to_string(type));
  const FlatTable content = table.table(1);
  ProgramInstruction instruction;
  instruction.kind = static_cast<InstructionKind>(type);
  instruction.index = content.scalar<int32_t>(0);
  if (instruction.kind == InstructionKind::kKernel ||
      instruction.kind == InstructionKind::kDelegate) {
    instruction.args = content.scalars<int32_t>(1);
  } else if (instruction.kind != InstructionKind::kFree) {
    instruction.target = content.scalar<int32_t>(1);
  }
  return instruction;
}

ProgramOffsets read_offsets(const FlatTable& table) {
  return {table.scalar<uint32_t>(0), table.scalars<uint64_t>(1)};
}

class Reader {
 public:
  Reader(FlatBuffer& buffer, const Header& header) : buffer_(buffer), header_(header) {}

  ProgramInfo read(uint64_t file_bytes) {
    const FlatTable program(buffer_, buffer_.follow(0));
    info_.file_bytes = file_bytes;
    info_.program_bytes = header_.program_bytes;
    info_.segment_base = header_.segment_base;
    info_.segment_bytes = header_.segment_bytes;
    info_.version = program.scalar<uint32_t>(0);
    program.each(2, "constant_buffer", [this](const FlatTable& buffer) {
      info_.inline_constants.push_back(buffer.bytes(0).size);
    });
    program.each(3, "backend_delegate_data",
                 [this](const FlatTable& data) { inline_data_.push_back(data.bytes(0)); });
    program.each(4, "segments", [this](const FlatTable& segment) {
      info_.segments.push_back({segment.scalar<uint64_t>(0), segment.scalar<uint64_t>(1)});
    });
    if (program.has(5)) {
      FlatBuffer::Scope scope(buffer_, "constant_segment");
      info_.constants = read_offsets(program.table(5));
    }
    program.each(6, "mutable_data_segments", [this](const FlatTable& data) {
      info_.mutable_data.push_back(read_offsets(data));
    });
    program.each(7, "named_data", [this](const FlatTable& data) {
      info_.named_data.push_back({std::string(data.text(0)), data.scalar<uint32_t>(1)});
    });
    program.each(1, "execution_plan", [this](const FlatTable& plan) { read_method(plan); });
    return std::move(info_);
  }

 private:
  void read_method(const FlatTable& plan) {
    ProgramMethod& method = info_.methods.emplace_back();
    if (!plan.has(0)) buffer_.fail("the method has no name");
    method.name = plan.text(0);
    method.values.reserve(plan.count(2));
    plan.each(2, "values", [&](const FlatTable& value) {
      method.values.push_back(read_value(value, method.tensors));
    });
    method.inputs = plan.scalars<int32_t>(3);
    method.outputs = plan.scalars<int32_t>(4);
    plan.each(5, "chains", [&](const FlatTable& chain) {
      auto& instructions = method.chains.emplace_back();
      instructions.reserve(chain.count(2));
      chain.each(2, "instructions", [&](const FlatTable& instruction) {
        instructions.push_back(read_instruction(instruction));
      });
    });
    plan.each(6, "operators", [&](const FlatTable& op) {
      if (!op.has(0) || !op.has(1)) buffer_.fail("name or overload is missing");
      std::string name(op.text(0));
      if (!op.text(1).empty()) name += "." + std::string(op.text(1));
      method.operators.push_back(std::move(name));
    });
    plan.each(7, "delegates",
              [&](const FlatTable& table) { method.delegates.push_back(read_delegate(table)); });
    method.arena_bytes = plan.scalars<int64_t>(8);
  }

  ProgramDelegate read_delegate(const FlatTable& table) {
    ProgramDelegate delegate;
    if (!table.has(0)) buffer_.fail("the backend has no name");
    delegate.id = table.text(0);
    delegate.id_at = table.position(0);
    const FlatTable processed = table.table(1);
    delegate.in_segment = processed.scalar<int8_t>(0) == 1;
    delegate.index = processed.scalar<uint32_t>(1);
    if (delegate.in_segment && delegate.index < info_.segments.size()) {
      const ProgramSegment& segment = info_.segments[delegate.index];
      delegate.bytes = segment.bytes;
      delegate.offset = info_.segment_base + segment.offset;
    } else if (!delegate.in_segment && delegate.index < inline_data_.size()) {
      delegate.bytes = inline_data_[delegate.index].size;
      delegate.offset = inline_data_[delegate.index].offset;
    }
    table.each(2, "compile_specs", [this](const FlatTable& spec) {
      if (!spec.has(0) || !spec.has(1)) buffer_.fail("key or value is missing");
      spec.text(0);
      spec.bytes(1);
    });
    return delegate;
  }

  FlatBuffer& buffer_;
  const Header header_;
  ProgramInfo info_;
  std::vector<FlatTable::Bytes> inline_data_;
};

struct ScalarTypeFacts {
  const char* name;
  uint8_t bytes;
};

// ExecuTorch's ScalarType by number.
constexpr std::array<ScalarTypeFacts, 30> kScalarTypes = {{
    {"uint8", 1},           {"int8", 1},
    {"int16", 2},           {"int32", 4},
    {"int64", 8},           {"float16", 2},
    {"float32", 4},         {"float64", 8},
    {"complex32", 4},       {"complex64", 8},
    {"complex128", 16},     {"bool", 1},
    {"qint8", 1},           {"quint8", 1},
    {"qint32", 4},          {"bfloat16", 2},
    {"quint4x2", 1},        {"quint2x4", 1},
    {"bits1x8", 1},         {"bits2x4", 1},
    {"bits4x2", 1},         {"bits8", 1},
    {"bits16", 2},          {"float8_e5m2", 1},
    {"float8_e4m3fn", 1},   {"float8_e5m2fnuz", 1},
    {"float8_e4m3fnuz", 1}, {"uint16", 2},
    {"uint32", 4},          {"uint64", 8},
}};

}  // namespace

ProgramInfo read_program(const uint8_t* data, size_t size, std::optional<uint64_t> file_bytes) {
  const uint64_t whole = file_bytes.value_or(size);
  const Header header = read_header(data, size, whole);
  FlatBuffer buffer(data, static_cast<size_t>(header.program_bytes), "program");
  return Reader(buffer, header).read(whole);
}

size_t scalar_type_bytes(int8_t scalar_type) {
  const auto index = static_cast<uint8_t>(scalar_type);  // a negative one becomes too large
  return index >= kScalarTypes.size() ? 0 : kScalarTypes[index].bytes;
}

std::string scalar_type_name(int8_t scalar_type) {
  if (scalar_type_bytes(scalar_type) == 0) return "type " + std::to_string(scalar_type);
  return kScalarTypes[static_cast<uint8_t>(scalar_type)].name;
}

std::optional<uint64_t> tensor_bytes(const ProgramTensor& tensor) {
  // Below this ExecuTorch's signed arithmetic on it cannot overflow either.
  constexpr uint64_t kLimit = uint64_t{1} << 62;
  uint64_t bytes = scalar_type_bytes(tensor.scalar_type);
  bool is_empty = false;
  for (const int32_t size : tensor.sizes) {
    if (size < 0) return std::nullopt;
    if (size == 0) {
      is_empty = true;  // the other dimensions must still not overflow the strides
      continue;
    }
    if (bytes > kLimit / static_cast<uint64_t>(size)) return std::nullopt;
    bytes *= static_cast<uint64_t>(size);
  }
  return is_empty ? 0 : bytes;
}

}  // namespace emm
