#include "program/program_patch.h"

#include <cstdlib>
#include <cstring>
#include <string>

#include "base/error.h"
#include "program/flat_buffer.h"

namespace emm {
namespace {

constexpr size_t kAlign = 64;
constexpr size_t kProgramSizeAt = 16;  // in the file's header

size_t rounded(size_t bytes) { return (bytes + 3) / 4 * 4; }

// Writes behind and into a copy.
class Writer {
 public:
  Writer(uint8_t* data, size_t end) : data_(data), end_(end) {}

  template <typename T>
  void put(size_t at, T value) {
    std::memcpy(data_ + at, &value, sizeof value);
  }
  // A FlatBuffer's vector or string; returns where it lies.
  template <typename T>
  size_t append(const T* items, size_t count) {
    const size_t at = end_;
    put(at, static_cast<uint32_t>(count));
    std::memcpy(data_ + at + sizeof(uint32_t), items, count * sizeof(T));
    end_ += rounded(sizeof(uint32_t) + count * sizeof(T));
    return at;
  }
  // Points a field that holds a distance to something behind it.
  void point(size_t field, size_t target) { put(field, static_cast<uint32_t>(target - field)); }

 private:
  uint8_t* data_;
  size_t end_;
};

void shorten(Writer& writer, FlatBuffer& buffer, const FlatTable& chain, const ShortChain& plan) {
  const size_t vector = buffer.follow(chain.position(2));
  const auto count = buffer.scalar<uint32_t>(vector);
  uint32_t kept = 0;
  // Tables lie behind the vector that lists them, so moving up only makes distances larger.
  for (uint32_t i = 0; i < count; ++i) {
    const size_t table = buffer.follow(vector + sizeof(uint32_t) * (i + size_t{1}));
    const auto changed = plan.new_args.find(i);
    if (changed != plan.new_args.end()) {
      const size_t args = writer.append(changed->second.data(), changed->second.size());
      writer.point(FlatTable(buffer, table).table(1).position(1), args);
    }
    if (plan.is_dropped[i]) continue;
    writer.point(vector + sizeof(uint32_t) * (kept + size_t{1}), table);
    ++kept;
  }
  writer.put(vector, kept);
}

// All that a program says, as bytes that are the same only for programs that say the same.
class Account {
 public:
  const std::string& bytes() const { return bytes_; }

  void number(int64_t value) { bytes_.append(reinterpret_cast<const char*>(&value), sizeof value); }
  void text(const std::string& value) {
    number(static_cast<int64_t>(value.size()));
    bytes_ += value;
  }
  template <typename T>
  void numbers(const std::vector<T>& values) {
    number(static_cast<int64_t>(values.size()));
    for (const T& value : values) number(static_cast<int64_t>(value));
  }

  void value(const ProgramValue& value) {
    number(static_cast<int64_t>(value.kind));
    number(value.integer);
    real(value.real);
    text(value.text);
    numbers(value.items);
    number(static_cast<int64_t>(value.reals.size()));
    for (const double item : value.reals) real(item);
    number(static_cast<int64_t>(value.tensor));
  }
  void tensor(const ProgramTensor& tensor) {
    number(tensor.scalar_type);
    numbers(tensor.sizes);
    numbers(tensor.dim_order);
    for (const int64_t item :
         {int64_t{tensor.storage_offset}, int64_t{tensor.is_dynamic}, int64_t{tensor.is_unbound},
          int64_t{tensor.data_index}, int64_t{tensor.is_planned}, int64_t{tensor.memory_id},
          static_cast<int64_t>(tensor.memory_offset), int64_t{tensor.is_external}})
      number(item);
    text(tensor.name);
  }
  void offsets(const ProgramOffsets& offsets) {
    number(offsets.segment);
    numbers(offsets.offsets);
  }

 private:
  void real(double value) { bytes_.append(reinterpret_cast<const char*>(&value), sizeof value); }

  std::string bytes_;
};

// With `patch`: what the program would say then.
std::string account(const ProgramInfo& program, const ProgramPatch* patch) {
  Account account;
  for (const uint64_t item :
       {program.segment_base, program.segment_bytes, uint64_t{program.version},
        uint64_t{program.segments.size()}, uint64_t{program.mutable_data.size()},
        uint64_t{program.named_data.size()}, uint64_t{program.constants.has_value()}})
    account.number(static_cast<int64_t>(item));
  account.numbers(program.inline_constants);
  for (const ProgramSegment& segment : program.segments) {
    account.number(static_cast<int64_t>(segment.offset));
    account.number(static_cast<int64_t>(segment.bytes));
  }
  if (program.constants) account.offsets(*program.constants);
  for (const ProgramOffsets& data : program.mutable_data) account.offsets(data);
  for (const ProgramNamedData& data : program.named_data) {
    account.text(data.key);
    account.number(data.segment);
  }
  for (size_t m = 0; m < program.methods.size(); ++m) {
    const ProgramMethod& method = program.methods[m];
    account.text(method.name);
    account.number(static_cast<int64_t>(method.values.size()));
    for (const ProgramValue& value : method.values) account.value(value);
    for (const ProgramTensor& tensor : method.tensors) account.tensor(tensor);
    account.numbers(method.inputs);
    account.numbers(method.outputs);
    account.numbers(method.arena_bytes);
    for (const std::string& name : method.operators) account.text(name);
    for (size_t d = 0; d < method.delegates.size(); ++d) {
      const ProgramDelegate& delegate = method.delegates[d];
      account.text(patch != nullptr && patch->is_renamed[m][d] ? patch->backend : delegate.id);
      account.number(delegate.in_segment);
      account.number(delegate.index);
      account.number(static_cast<int64_t>(delegate.bytes));
    }
    const ShortChain* plan =
        patch == nullptr || patch->chains[m].new_args.empty() ? nullptr : &patch->chains[m];
    for (const auto& chain : method.chains) {
      account.text("chain");
      for (size_t i = 0; i < chain.size(); ++i) {
        if (plan != nullptr && plan->is_dropped[i]) continue;
        account.number(static_cast<int64_t>(chain[i].kind));
        account.number(chain[i].index);
        account.number(chain[i].target);
        const auto* args = &chain[i].args;
        if (plan != nullptr && plan->new_args.count(i) > 0) args = &plan->new_args.at(i);
        account.numbers(*args);
      }
    }
  }
  return account.bytes();
}

}  // namespace

ProgramCopy patch_program(const uint8_t* structure, const ProgramInfo& program,
                          const ProgramPatch& patch) {
  const auto bytes = static_cast<size_t>(program.program_bytes);
  size_t size = rounded(bytes) + rounded(sizeof(uint32_t) + patch.backend.size() + 1);
  for (const ShortChain& plan : patch.chains) {
    for (const auto& [instruction, args] : plan.new_args)
      size += sizeof(uint32_t) * (args.size() + 1);
  }
  const size_t room = (size + kAlign - 1) / kAlign * kAlign;
  ProgramCopy copy{{static_cast<uint8_t*>(std::aligned_alloc(kAlign, room)), std::free}, size};
  if (copy.data == nullptr) throw Error(ErrorCode::kLoad, "program: no memory for its structure");
  std::memcpy(copy.data.get(), structure, bytes);
  std::memset(copy.data.get() + bytes, 0, room - bytes);

  Writer writer(copy.data.get(), rounded(bytes));
  const size_t name = writer.append(patch.backend.c_str(), patch.backend.size() + 1);
  writer.put(name, static_cast<uint32_t>(patch.backend.size()));  // without its closing zero
  writer.put(kProgramSizeAt, static_cast<uint64_t>(size));
  size_t m = 0;
  FlatBuffer buffer(copy.data.get(), size, "program");
  FlatTable(buffer, buffer.follow(0)).each(1, "execution_plan", [&](const FlatTable& table) {
    const ProgramMethod& method = program.methods.at(m);
    for (size_t d = 0; d < method.delegates.size(); ++d) {
      if (patch.is_renamed[m][d])
        writer.point(static_cast<size_t>(method.delegates[d].id_at), name);
    }
    const ShortChain& plan = patch.chains[m++];
    if (plan.new_args.empty()) return;
    table.each(5, "chains", [&](const FlatTable& chain) { shorten(writer, buffer, chain, plan); });
  });
  const ProgramInfo found = read_program(copy.data.get(), size, program.file_bytes);
  if (account(found, nullptr) != account(program, &patch)) return {};
  return copy;
}

}  // namespace emm
