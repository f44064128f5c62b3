#include "et/patched_loader.h"

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

#include "base/error.h"

namespace emm {
namespace {

using executorch::runtime::DataLoader;
using executorch::runtime::Error;
using executorch::runtime::FreeableBuffer;
using executorch::runtime::Result;

constexpr size_t kProgramSizeAt = 16;  // in the file's header
// Larger structures hold weights: such files are from before segments.
constexpr uint64_t kMaxProgramBytes = uint64_t{64} << 20;

bool is_layer(const ProgramDelegate& delegate, const LinearChoice& choice) {
  return choice.only_int4 ? delegate.is_int4 : delegate.is_linear;
}

bool is_taken(const ProgramInfo& program, const ProgramDelegate& delegate,
              const LinearChoice& choice) {
  return (is_layer(delegate, choice) || (choice.pointwise && delegate.is_pointwise)) &&
         delegate.id_at + sizeof(uint32_t) <= program.program_bytes;
}

size_t count(const ProgramInfo& program, const LinearChoice& choice, bool layers) {
  if (program.segment_base == 0 || program.program_bytes > kMaxProgramBytes) return 0;
  size_t count = 0;
  for (const ProgramMethod& method : program.methods) {
    for (const ProgramDelegate& delegate : method.delegates)
      count += is_taken(program, delegate, choice) && is_layer(delegate, choice) == layers;
  }
  return count;
}

class PatchedLoader final : public DataLoader {
 public:
  PatchedLoader(std::unique_ptr<DataLoader> inner, std::shared_ptr<uint8_t> program, size_t size)
      : inner_(std::move(inner)), program_(std::move(program)), size_(size) {}

  Result<FreeableBuffer> load(size_t offset, size_t size, const SegmentInfo& info) const override {
    if (info.segment_type != SegmentInfo::Type::Program) return inner_->load(offset, size, info);
    if (offset > size_ || size > size_ - offset) return Error::InvalidArgument;
    return FreeableBuffer(program_.get() + offset, size, nullptr);
  }
  Error load_into(size_t offset, size_t size, const SegmentInfo& info,
                  void* buffer) const override {
    if (info.segment_type != SegmentInfo::Type::Program)
      return inner_->load_into(offset, size, info, buffer);
    if (offset > size_ || size > size_ - offset) return Error::InvalidArgument;
    std::memcpy(buffer, program_.get() + offset, size);
    return Error::Ok;
  }
  Result<size_t> size() const override { return inner_->size(); }

 private:
  std::unique_ptr<DataLoader> inner_;
  std::shared_ptr<uint8_t> program_;
  size_t size_;
};

}  // namespace

size_t count_linear_delegates(const ProgramInfo& program, const LinearChoice& choice) {
  return count(program, choice, /*layers=*/true);
}

size_t count_pointwise_delegates(const ProgramInfo& program, const LinearChoice& choice) {
  return count(program, choice, /*layers=*/false);
}

std::unique_ptr<DataLoader> rename_linear_delegates(std::unique_ptr<DataLoader> inner,
                                                    const ProgramInfo& program,
                                                    const LinearChoice& choice,
                                                    const char* backend) {
  // The structure, then our name as a FlatBuffer's string: length, letters, a zero.
  const auto bytes = static_cast<size_t>(program.program_bytes);
  const size_t name_at = (bytes + 3) / 4 * 4;
  const size_t length = std::strlen(backend);
  const size_t size = name_at + sizeof(uint32_t) + length + 1;
  constexpr size_t kAlign = 64;
  const std::shared_ptr<uint8_t> copy(
      static_cast<uint8_t*>(std::aligned_alloc(kAlign, (size + kAlign - 1) / kAlign * kAlign)),
      std::free);
  if (copy == nullptr) throw emm::Error(ErrorCode::kLoad, "program: no memory for its structure");
  {
    auto original =
        inner->load(0, bytes, DataLoader::SegmentInfo(DataLoader::SegmentInfo::Type::Program));
    if (!original.ok() || original->size() < bytes)
      throw emm::Error(ErrorCode::kLoad, "program: its structure cannot be read");
    std::memcpy(copy.get(), original->data(), bytes);
  }
  std::memset(copy.get() + bytes, 0, size - bytes);
  const auto put = [&](size_t at, auto value) {
    std::memcpy(copy.get() + at, &value, sizeof value);
  };
  put(name_at, static_cast<uint32_t>(length));
  std::memcpy(copy.get() + name_at + sizeof(uint32_t), backend, length);
  put(kProgramSizeAt, static_cast<uint64_t>(size));
  for (const ProgramMethod& method : program.methods) {
    for (const ProgramDelegate& delegate : method.delegates) {
      if (is_taken(program, delegate, choice))
        put(static_cast<size_t>(delegate.id_at), static_cast<uint32_t>(name_at - delegate.id_at));
    }
  }
  return std::make_unique<PatchedLoader>(std::move(inner), copy, size);
}

}  // namespace emm
