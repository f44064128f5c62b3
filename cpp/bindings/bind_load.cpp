#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "bindings/bindings.h"
#include "model/load_options.h"

namespace emm::bindings {
namespace {

using Bytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

LoadMode to_load_mode(const std::string& name) {
  if (name == "mmap") return LoadMode::kMmap;
  if (name == "mmap+mlock") return LoadMode::kMmapMlock;
  if (name == "file") return LoadMode::kFile;
  throw Error(ErrorCode::kInput,
              "load_mode: expected 'mmap', 'mmap+mlock' or 'file', got '" + name + "'");
}

WorkspaceSharing to_workspace_sharing(const std::string& name) {
  if (name == "disabled") return WorkspaceSharing::kDisabled;
  if (name == "per_model") return WorkspaceSharing::kPerModel;
  if (name == "global") return WorkspaceSharing::kGlobal;
  throw Error(
      ErrorCode::kInput,
      "workspace_sharing: expected 'disabled', 'per_model' or 'global', got '" + name + "'");
}

// The model shares the buffer's memory and holds a reference to it, which may be dropped in the
// midst of native work.
ModelBytes to_model_bytes(Bytes bytes) {
  const void* data = bytes.data();
  const size_t size = bytes.size();
  return {data, size, std::shared_ptr<Bytes>(new Bytes(std::move(bytes)), DeleteWithGil())};
}

FolderPart make_folder_part(std::string name, const FsPath& path, std::vector<std::string> inputs,
                            std::vector<std::string> outputs, std::vector<Shape> shapes) {
  if (shapes.size() != inputs.size())
    throw Error(ErrorCode::kInput, "shapes: expected one for each input");
  return {std::move(name), path.native(), std::move(inputs), std::move(outputs), std::move(shapes)};
}

ExportFolder make_export_folder(std::vector<FolderPart> parts, int64_t max_cache_len,
                                std::vector<int64_t> eos_ids, std::string image_features,
                                bool skips_first_feature) {
  return {std::move(parts), max_cache_len, std::move(eos_ids), std::move(image_features),
          skips_first_feature};
}

void bind_folder(nb::module_& module) {
  nb::class_<FolderPart>(module, "FolderPart", "A program of an export folder.")
      .def(nb::new_(&make_folder_part), nb::kw_only(), "name"_a, "path"_a, "inputs"_a, "outputs"_a,
           "shapes"_a, "Names of inputs and outputs, and the inputs' traced shapes, in order.")
      .def_ro("name", &FolderPart::name)
      .def_prop_ro(
          "path", [](const FolderPart& part) { return to_path(part.path); },
          nb::sig("def path(self) -> str"));
  nb::class_<ExportFolder>(module, "ExportFolder", "A model in several programs.")
      .def(nb::new_(&make_export_folder), nb::kw_only(), "parts"_a, "max_cache_len"_a, "eos_ids"_a,
           "image_features"_a, "skips_first_feature"_a, "max_cache_len 0: not said.")
      .def_ro("parts", &ExportFolder::parts);
}

LoadOptions make_load_options(const FsPath& model_path, std::optional<Bytes> model_bytes,
                              const std::vector<FsPath>& data_paths, const std::string& load_mode,
                              int64_t num_threads, int64_t max_context_len, std::string method,
                              std::string kv_cache_dtype, const std::string& workspace_sharing,
                              bool weight_cache, std::string linear, std::string linear_weights,
                              const FsPath& openvino_library, const FsPath& profile_path,
                              std::optional<ExportFolder> folder, bool copies_state) {
  LoadOptions options;
  options.model_path = model_path.native();
  if (model_bytes) options.model_bytes = to_model_bytes(std::move(*model_bytes));
  for (const FsPath& path : data_paths) options.data_paths.push_back(path.native());
  options.load_mode = to_load_mode(load_mode);
  options.num_threads = num_threads;
  options.max_context_len = max_context_len;
  options.method = std::move(method);
  options.kv_cache_dtype = std::move(kv_cache_dtype);
  options.xnnpack = {to_workspace_sharing(workspace_sharing), weight_cache};
  options.linear = std::move(linear);
  options.linear_weights = std::move(linear_weights);
  options.openvino_library = openvino_library.native();
  options.profile_path = profile_path.native();
  if (folder) options.folder = std::move(*folder);
  options.copies_state = copies_state;
  return options;
}

using PythonLogLine = std::tuple<int, std::string, int64_t, nb::str>;

int to_logging_level(LogLevel level) {  // as Python's logging counts
  switch (level) {
    case LogLevel::kDebug:
      return 10;
    case LogLevel::kInfo:
      return 20;
    case LogLevel::kError:
      return 40;
    case LogLevel::kFatal:
      break;
  }
  return 50;
}

std::vector<PythonLogLine> take_log_lines() {
  std::vector<PythonLogLine> taken;
  for (const LogLine& line : LogQueue::instance().take()) {
    taken.emplace_back(to_logging_level(line.level), line.file, line.line, to_str(line.text));
  }
  return taken;
}

}  // namespace

void bind_load(nb::module_& module) {
  bind_folder(module);
  nb::class_<LoadOptions>(module, "LoadOptions", "How a model is loaded.")
      .def(nb::new_(&make_load_options), nb::kw_only(), "model_path"_a, "model_bytes"_a.none(),
           "data_paths"_a, "load_mode"_a, "num_threads"_a, "max_context_len"_a = 0, "method"_a = "",
           "kv_cache_dtype"_a = "", "workspace_sharing"_a, "weight_cache"_a, "linear"_a = "auto",
           "linear_weights"_a = "auto", "openvino_library"_a, "profile_path"_a,
           "folder"_a.none() = nb::none(), "copies_state"_a = false,
           "model_bytes is shared, not copied. num_threads 0: chosen from the model's size; "
           "max_context_len 0: as the program says. Empty strings stand for what is not given.")
      .def_prop_ro(
          "model_path", [](const LoadOptions& options) { return to_path(options.model_path); },
          nb::sig("def model_path(self) -> str"));
  module.def("take_log_lines", take_log_lines,
             "The lines logged since the last call, by any thread: (level, file, line, text).");
}

}  // namespace emm::bindings
