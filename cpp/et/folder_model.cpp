#include "et/folder_model.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/error.h"
#include "et/thread_pool.h"

namespace emm {

FolderModel::FolderModel(const LoadOptions& options) {
  if (!options.data_paths.empty())
    throw Error(ErrorCode::kInput, "data_path: an export folder keeps no weights elsewhere");
  if (!options.kv_cache_dtype.empty()) {
    throw Error(ErrorCode::kInput,
                "kv_cache_dtype: an export folder's programs take the cache as they were exported");
  }
  if (!options.method.empty() && options.method != "decode")
    throw Error(ErrorCode::kInput, "method: expected one of decode, got " + options.method);
  std::vector<std::unique_ptr<EtProgram>> programs;
  std::vector<ProgramInfo> structures;
  size_t file_bytes = 0;
  for (const FolderPart& part : options.folder.parts) {
    LoadOptions one = options;
    one.folder = {};
    one.model_path = part.path;
    if (part.name != "decode") one.profile_path.clear();
    programs.push_back(std::make_unique<EtProgram>(one));
    structures.push_back(programs.back()->take_structure());
    file_bytes += programs.back()->file_bytes();
  }
  folder = read_folder(options.folder, structures, options.max_context_len);
  num_threads = options.num_threads > 0 ? options.num_threads : untried_num_threads(file_bytes);
  load_parts(options.folder, programs);
  give_sizes();
  for (const CacheTensor& tensor : folder.cache)
    folder.contract.is_state_copied |= tensor.kept.has_value();
}

void FolderModel::load_parts(const ExportFolder& files,
                             std::vector<std::unique_ptr<EtProgram>>& programs) {
  const auto given = [](const std::optional<FolderCall>& call) { return call ? &*call : nullptr; };
  const std::vector<std::pair<const char*, const FolderCall*>> calls = {
      {"decode", &folder.decode},
      {"prefill", given(folder.prefill)},
      {"language_model", given(folder.language_model)},
      {"lm_head", given(folder.lm_head)},
      {"image_encoder", given(folder.image_encoder)},
      {"audio_encoder", given(folder.audio_encoder)},
      {"image_projector", given(folder.image_projector)},
      {"audio_projector", given(folder.audio_projector)}};
  for (const auto& [name, call] : calls) {
    if (call == nullptr) continue;
    const auto& all = files.parts;
    const auto found = std::find_if(all.begin(), all.end(),
                                    [&](const FolderPart& one) { return one.path == call->path; });
    const auto index = static_cast<size_t>(found - all.begin());
    if (programs[index] == nullptr)
      throw Error(ErrorCode::kContract, call->path + ": expected a file for each component");
    Part& part = parts[name];
    part.call = call;
    part.program = std::move(programs[index]);
    part.program->use_threads(num_threads);
    part.program->load_method(call->method);
    part.inputs.resize(call->inputs.size());
  }
}

// What stays in the decoder's own memory is given its size once.
void FolderModel::give_sizes() {
  EtProgram& decode = *parts.at("decode").program;
  for (size_t i = 0; i < folder.decode.inputs.size(); ++i) {
    const PartInput& input = folder.decode.inputs[i];
    if (input.feed != Feed::kCache || !folder.cache[input.cache].kept) continue;
    const CacheTensor& tensor = folder.cache[input.cache];
    TensorView zeros{nullptr, tensor.dtype, tensor.shape};
    const std::vector<uint8_t> nothing(zeros.size_bytes(), 0);
    zeros.data = nothing.data();
    decode.set_input(kForward, i, zeros, ErrorCode::kLoad);
  }
}

}  // namespace emm
