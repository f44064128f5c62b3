#include "program/data_file.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <unordered_set>
#include <utility>

#include "base/error.h"
#include "program/flat_buffer.h"
#include "program/mapped_file.h"
#include "program/method_check.h"

namespace emm {
namespace {

// Between the file identifier and the FlatBuffer: sizes that the schema does not hold.
constexpr size_t kHeaderOffset = 8;
constexpr size_t kHeaderBytes = 40;
constexpr uint32_t kVersion = 0;  // the only one there is

struct Header {
  uint64_t structure_bytes = 0;  // from the file's beginning
  uint64_t segment_base = 0;
  uint64_t segment_bytes = 0;
};

Header read_header(const uint8_t* data, size_t size, const std::string& name) {
  const FlatBuffer file(data, size, name + ": header");
  if (size < kHeaderOffset + kHeaderBytes || std::memcmp(data + 4, "FT01", 4) != 0 ||
      std::memcmp(data + kHeaderOffset, "FH01", 4) != 0)
    file.fail("expected the marks FT01 and FH01 of an ExecuTorch .ptd file");
  if (file.scalar<uint32_t>(kHeaderOffset + 4) < kHeaderBytes) file.fail("it is too short");
  const auto offset = file.scalar<uint64_t>(kHeaderOffset + 8);
  const auto bytes = file.scalar<uint64_t>(kHeaderOffset + 16);
  const Header header{offset + bytes, file.scalar<uint64_t>(kHeaderOffset + 24),
                      file.scalar<uint64_t>(kHeaderOffset + 32)};
  if (!is_inside(offset, bytes, size) ||
      !is_inside(header.segment_base, header.segment_bytes, size)) {
    file.fail("it says " + std::to_string(bytes) + " bytes of structure and " +
              std::to_string(header.segment_bytes) + " of data from " +
              std::to_string(header.segment_base) + " on, the file has " + std::to_string(size));
  }
  return header;
}

ProgramTensor read_layout(const FlatTable& table) {
  ProgramTensor layout;
  layout.scalar_type = table.scalar<int8_t>(0);
  if (!table.has(1) || !table.has(2)) table.buffer().fail("sizes or order of dimensions missing");
  layout.sizes = table.scalars<int32_t>(1);
  layout.dim_order = table.scalars<uint8_t>(2);
  return layout;
}

void check_layout(const FlatBuffer& buffer, const ProgramTensor& layout, uint64_t bytes) {
  if (scalar_type_bytes(layout.scalar_type) == 0) buffer.fail("an unknown element");
  if (!is_dim_order(layout.dim_order, layout.sizes.size()))
    buffer.fail("an order of dimensions that is not a permutation");
  const auto needed = tensor_bytes(layout);
  if (!needed) buffer.fail("a negative size, or sizes that overflow");
  if (*needed > bytes) {
    buffer.fail("a tensor of " + std::to_string(*needed) + " bytes, its data has " +
                std::to_string(bytes));
  }
}

}  // namespace

std::vector<DataEntry> check_data(const uint8_t* data, size_t size, const std::string& name) {
  const Header header = read_header(data, size, name);
  FlatBuffer buffer(data, static_cast<size_t>(header.structure_bytes), name);
  const FlatTable root(buffer, buffer.follow(0));
  if (const auto version = root.scalar<uint32_t>(0); version > kVersion)
    buffer.fail("version " + std::to_string(version) + " of the format, expected 0");
  if (!root.has(1) || !root.has(2)) buffer.fail("no list of segments or of names");
  std::vector<uint64_t> sizes;
  root.each(1, "segments", [&](const FlatTable& segment) {
    const auto offset = segment.scalar<uint64_t>(0);
    const auto bytes = segment.scalar<uint64_t>(1);
    // An empty one too: ExecuTorch wants its place inside.
    if (!is_inside(offset, bytes, header.segment_bytes)) {
      buffer.fail(std::to_string(bytes) + " bytes at " + std::to_string(offset) + " of " +
                  std::to_string(header.segment_bytes));
    }
    sizes.push_back(bytes);
  });
  std::vector<DataEntry> entries;
  std::unordered_set<std::string> keys;
  root.each(2, "named_data", [&](const FlatTable& named) {
    DataEntry entry{std::string(named.text(0)), 0, std::nullopt};
    const auto segment = named.scalar<uint32_t>(1);
    if (entry.key.empty() || entry.key.find('\0') != std::string::npos)
      buffer.fail("a name that is missing");
    if (segment >= sizes.size()) buffer.fail("'" + entry.key + "' is in no segment");
    if (!keys.insert(entry.key).second) buffer.fail("'" + entry.key + "' is there twice");
    entry.bytes = sizes[segment];
    if (named.has(2)) {
      FlatBuffer::Scope scope(buffer, "tensor_layout");
      entry.layout = read_layout(named.table(2));
      check_layout(buffer, *entry.layout, entry.bytes);
    }
    entries.push_back(std::move(entry));
  });
  return entries;
}

std::vector<DataEntry> check_data_file(const std::string& path) {
  const MappedFile file(path);
  return check_data(file.data(), file.size(), path);
}

std::vector<std::string> beside_adapter(const std::vector<std::string>& paths,
                                        const std::vector<std::string>& adapter) {
  std::set<std::string> taken;
  for (const std::string& path : adapter) {
    for (DataEntry& entry : check_data_file(path)) taken.insert(std::move(entry.key));
  }
  std::vector<std::string> files;
  for (const std::string& path : paths) {
    const std::vector<DataEntry> entries = check_data_file(path);
    const bool is_replaced =
        std::any_of(entries.begin(), entries.end(),
                    [&](const DataEntry& entry) { return taken.count(entry.key) != 0; });
    if (!is_replaced) files.push_back(path);
  }
  files.insert(files.end(), adapter.begin(), adapter.end());
  return files;
}

}  // namespace emm
