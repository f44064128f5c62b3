#include "program/program_check.h"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "base/error.h"
#include "program/linear_graph.h"
#include "program/mapped_file.h"
#include "program/method_check.h"
#include "program/pointwise_graph.h"
#include "program/rotary_graph.h"

namespace emm {
namespace {

// Planned memory that no tensor uses, beyond which a size is taken for damage.
constexpr uint64_t kSpareArenaBytes = uint64_t{1} << 20;

void check_segments(const ProgramInfo& program) {
  if (program.methods.empty()) refuse_program("program: it has no methods");
  // Files without constants list an empty segment and have no place for segments.
  const bool has_data =
      std::any_of(program.segments.begin(), program.segments.end(),
                  [](const ProgramSegment& segment) { return segment.bytes > 0; });
  if (has_data && program.segment_base == 0)
    refuse_program("program: it has segments, but its header says none");
  const uint64_t room = program.file_bytes - program.segment_base;
  for (size_t i = 0; i < program.segments.size(); ++i) {
    const ProgramSegment& segment = program.segments[i];
    if (!is_inside(segment.offset, segment.bytes, room)) {
      refuse_program("program: segment " + std::to_string(i) + " has " +
                     std::to_string(segment.bytes) + " bytes at " +
                     std::to_string(program.segment_base + segment.offset) + ", the file has " +
                     std::to_string(program.file_bytes));
    }
  }
  if (program.constants && program.constants->offsets.size() > 1 &&
      (program.constants->segment >= program.segments.size() || !program.inline_constants.empty()))
    refuse_program("program: its constants are in no segment, or in two places");
  for (const ProgramNamedData& named : program.named_data) {
    if (named.key.empty() || named.segment >= program.segments.size())
      refuse_program("program: named data '" + named.key + "' is in no segment");
  }
}

// A plan has little room to spare; memory that nothing uses is a size that was changed. Memory that
// methods share has its whole size in each of them, whatever they use of it: so what counts is the
// most that any method with the same size uses. `used`: for each method, of each memory.
void check_arenas(const ProgramInfo& program, const std::vector<std::vector<uint64_t>>& used) {
  std::map<std::pair<size_t, int64_t>, uint64_t> most;
  for (size_t m = 0; m < used.size(); ++m) {
    for (size_t i = 1; i < used[m].size(); ++i) {
      uint64_t& bytes = most[{i, program.methods[m].arena_bytes[i]}];
      bytes = std::max(bytes, used[m][i]);
    }
  }
  for (const ProgramMethod& method : program.methods) {
    for (size_t i = 1; i < method.arena_bytes.size(); ++i) {
      const int64_t bytes = method.arena_bytes[i];
      const uint64_t needed = most[{i, bytes}];
      if (bytes < 0 || static_cast<uint64_t>(bytes) > 2 * needed + kSpareArenaBytes) {
        refuse_program("method " + method.name + ": planned memory " + std::to_string(i) + " has " +
                       std::to_string(bytes) + " bytes, its tensors need " +
                       std::to_string(needed));
      }
    }
  }
}

// Whether it is a graph that we can run ourselves.
void find_kind(ProgramDelegate& delegate, const uint8_t* data, const std::string& what) {
  const auto size = static_cast<size_t>(delegate.bytes);
  std::vector<uint32_t> outputs;
  if (const auto nodes = read_linear_graph(data, size, what)) {
    delegate.is_linear = true;
    delegate.is_int4 = std::all_of(nodes->begin(), nodes->end(), [](const LinearNode& node) {
      return node.format == LinearFormat::kInt4Groups;
    });
    for (const LinearNode& node : *nodes) outputs.push_back(node.output_arg);
  } else if (const auto graph = read_pointwise_graph(data, size, what)) {
    delegate.is_pointwise = true;
    for (const PointwiseValue& value : graph->values) {
      if (value.output) outputs.push_back(*value.output);
    }
  } else if (auto parts = read_rotary_graph(data, size, what)) {
    for (const RotaryPart& part : *parts) outputs.push_back(part.output);
    delegate.rotary = std::move(*parts);
  } else {
    return;
  }
  delegate.outputs = std::move(outputs);
}

template <typename Read>
ProgramInfo named(const std::string& name, Read&& read) {
  try {
    return read();
  } catch (const Error& error) {
    throw Error(error.code(), name + ": " + error.what());
  }
}

}  // namespace

ProgramInfo check_program(const uint8_t* data, size_t size, const std::string& name,
                          const std::vector<DataEntry>& outside) {
  return named(name, [&] {
    ProgramInfo program = read_program(data, size);
    check_segments(program);
    NamedEntries named_data;
    for (const ProgramNamedData& data_of : program.named_data)
      named_data.emplace(data_of.key,
                         NamedEntry{program.segments[data_of.segment].bytes, nullptr, false});
    for (const DataEntry& entry : outside) {
      const ProgramTensor* layout = entry.layout ? &*entry.layout : nullptr;
      if (!named_data.emplace(entry.key, NamedEntry{entry.bytes, layout, true}).second)
        refuse_program("'" + entry.key + "' is there twice: in two .ptd files, or in the program");
    }
    std::vector<std::vector<uint64_t>> used;
    used.reserve(program.methods.size());
    for (const ProgramMethod& method : program.methods)
      used.push_back(check_method(program, method, data, named_data));
    check_arenas(program, used);
    for (ProgramMethod& method : program.methods) {
      for (ProgramDelegate& delegate : method.delegates) {
        if (delegate.id != "XnnpackBackend") continue;
        find_kind(delegate, data + *delegate.offset, "method " + method.name);
      }
    }
    return program;
  });
}

ProgramInfo check_program_file(const std::string& path, const std::vector<DataEntry>& outside) {
  const MappedFile file(path);
  return check_program(file.data(), file.size(), path, outside);
}

ProgramInfo read_program_file(const std::string& path) {
  const MappedFile file(path);
  return named(path, [&] { return read_program(file.data(), file.size()); });
}

}  // namespace emm
