// One program of an export folder with the names that export.json gives its inputs and outputs.
#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <string>

#include "model/contract.h"
#include "model/export_folder.h"
#include "model/folder_reader.h"
#include "program/program_file.h"

namespace emm {

// "past_key_values.layers.0.keys" is one.
bool is_cache(const std::string& name);
// Its name without the first word, which parts may call differently.
std::string in_cache(const std::string& name);
bool ends_with(const std::string& text, const std::string& end);

struct NamedPart {
  const FolderPart& names;
  const ProgramMethod& program;
  MethodSpec spec;
  size_t first_output = 0;

  [[noreturn]] void refuse_input(size_t i, const std::string& expected) const;
  std::optional<size_t> find_output(const std::string& name) const;
  std::optional<size_t> find_input(const std::string& name) const;
  // Where a tensor of the cache comes out.
  std::optional<size_t> find_cache_output(const std::string& name_in_cache) const;
  // Of an input; the bound where export.json does not say.
  Shape traced_shape(size_t i) const;
};

using NamedParts = std::map<std::string, NamedPart>;  // by the component's name

inline const NamedPart* find_named(const NamedParts& parts, const std::string& name) {
  const auto found = parts.find(name);
  return found == parts.end() ? nullptr : &found->second;
}

// Throws Error(kContract) where names and program do not agree.
NamedPart read_part(const FolderPart& names, const ProgramInfo& program);

// What goes into each input, by its name, and by its shape for a tensor of that name. What takes
// no tokens takes an image or a clip, or rows of it.
FolderCall read_call(const NamedPart& part, bool is_decoder);

// The output of this name, or the only one, floats of `rank` dimensions; 0 for any.
size_t expect_result(const NamedPart& part, const std::string& name, size_t rank);

// Whether nothing else lies where the tensor does, so that it stays between calls.
bool is_alone(const ProgramMethod& method, const ProgramTensor& tensor);

// The table that the method looks its token ids up in, where it is a constant in the file.
std::optional<EmbeddingTable> find_embeddings(const ProgramInfo& program,
                                              const ProgramMethod& method, int32_t ids);

}  // namespace emm
