#include "at_once.h"

namespace emm::threads {
namespace {

using Names = std::vector<std::string>;

const Names kTensors = {
    "cache.layers.0.keys", "cache.layers.0.values", "cache.layers.0.cumulative_length",
    "cache.layers.1.keys", "cache.layers.1.values", "cache.layers.1.cumulative_length"};
const Names kGrowing = {kTensors[0], kTensors[1], kTensors[3], kTensors[4]};

Names joined(Names names, const Names& more) {
  names.insert(names.end(), more.begin(), more.end());
  return names;
}

LoadOptions folder_of(int64_t max_cache_len, std::vector<FolderPart> parts,
                      const std::string& name) {
  LoadOptions options;
  options.num_threads = 1;
  options.folder.max_cache_len = max_cache_len;
  for (FolderPart& part : parts)
    part.path = model_file("export_folders/" + name + "/" + part.name + ".pte");
  options.folder.parts = std::move(parts);
  return options;
}

FolderPart fixed_decode() {
  return {"decode",
          "",
          joined({"input_ids", "attention_mask", "position_ids"}, kTensors),
          joined({"logits"}, kTensors),
          {{1, 2}, {1, 1, 2, 48}, {1, 2}, {}, {}, {}, {}, {}, {}}};
}

}  // namespace

LoadOptions llama_folder() {
  return folder_of(48,
                   {{"prefill",
                     "",
                     {"input_ids", "position_ids", kTensors[2], kTensors[5]},
                     joined({"logits"}, kTensors),
                     {{1, 4}, {1, 4}, {}, {}}},
                    fixed_decode()},
                   "llama");
}

LoadOptions gpt2_folder() {
  return folder_of(64,
                   {{"prefill",
                     "",
                     {"input_ids", "position_ids"},
                     joined({"logits"}, kGrowing),
                     {{1, 4}, {1, 4}}},
                    {"decode",
                     "",
                     joined(joined({"input_ids"}, kGrowing), {"position_ids"}),
                     joined({"logits"}, kGrowing),
                     {{1, 2}, {}, {}, {}, {}, {1, 2}}}},
                   "gpt2");
}

LoadOptions llava_folder() {
  LoadOptions options =
      folder_of(48,
                {{"image_encoder",
                  "",
                  {"pixel_values"},
                  {"last_hidden_state", "pooler_output", "hidden_states.0", "hidden_states.1",
                   "hidden_states.2"},
                  {{1, 3, 16, 16}}},
                 {"language_model",
                  "",
                  {"attention_mask", "position_ids", kTensors[2], kTensors[5], "inputs_embeds"},
                  joined({"last_hidden_state"}, kTensors),
                  {{}, {1, 8}, {}, {}, {1, 8, 32}}},
                 {"multi_modal_projector", "", {"image_features"}, {"the value"}, {{1, 4, 32}}},
                 {"lm_head", "", {"input"}, {"the value"}, {{1, 8, 32}}},
                 fixed_decode()},
                "llava");
  options.folder.image_features = "hidden_states.1";
  options.folder.skips_first_feature = true;
  return options;
}

}  // namespace emm::threads
