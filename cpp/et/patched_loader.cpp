#include "et/patched_loader.h"

#include <executorch/runtime/platform/log.h>

#include <cstddef>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "program/equal_calls.h"
#include "program/program_patch.h"
#include "program/short_chain.h"

namespace emm {
namespace {

using executorch::runtime::DataLoader;
using executorch::runtime::Error;
using executorch::runtime::FreeableBuffer;
using executorch::runtime::Result;

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
  ProgramPatch patch{backend, {}, {}};
  size_t rotary = 0;
  size_t dropped = 0;
  for (const ProgramMethod& method : program.methods) {
    auto& is_renamed = patch.is_renamed.emplace_back();
    for (const ProgramDelegate& delegate : method.delegates)
      is_renamed.push_back(is_taken(program, delegate, choice));
    ShortChain& chain =
        patch.chains.emplace_back(choice.rotary ? shorten_chain(method) : ShortChain{});
    if (choice.equal_calls) dropped += drop_equal_calls(method, chain);
    for (const size_t delegate : chain.rotary_delegates) is_renamed[delegate] = true;
    rotary += chain.rotary_delegates.size();
  }
  ProgramCopy copy;
  {
    const auto bytes = static_cast<size_t>(program.program_bytes);
    auto original =
        inner->load(0, bytes, DataLoader::SegmentInfo(DataLoader::SegmentInfo::Type::Program));
    if (!original.ok() || original->size() < bytes)
      throw emm::Error(ErrorCode::kLoad, "program: its structure cannot be read");
    copy = patch_program(static_cast<const uint8_t*>(original->data()), program, patch);
  }
  if (copy.data == nullptr) {
    ET_LOG(Info, "none of them: the program's tables lie in each other");
    return inner;
  }
  ET_LOG(Info, "%zu rotary embeddings are ours", rotary);
  ET_LOG(Info, "%zu instructions that repeat another one are left out", dropped);
  return std::make_unique<PatchedLoader>(std::move(inner), copy.data, copy.size);
}

}  // namespace emm
