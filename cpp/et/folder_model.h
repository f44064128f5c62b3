// An export folder that is loaded once for all its conversations: its programs and what is known of
// them. Whoever calls holds a turn.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/turns.h"
#include "et/et_program.h"
#include "model/folder_reader.h"
#include "model/load_options.h"

namespace emm {

inline constexpr const char* kForward = "forward";  // the method of every part

// What a conversation has in the decoder's memory, while it is another's.
struct KeptCache {
  std::vector<std::unique_ptr<PlannedMemory>> copies;  // by tensor, of those that are kept
  int64_t num_rows = 0;                                // of flat ones that are in use
};

struct FolderModel {
  // A program of the folder, loaded.
  struct Part {
    const FolderCall* call = nullptr;
    std::unique_ptr<EtProgram> program;
    std::vector<std::vector<uint8_t>> inputs;  // what is made for each
  };

  // Loads every part that is needed. Throws Error(kLoad), Error(kContract), or Error(kInput) for an
  // option.
  explicit FolderModel(const LoadOptions& options);

  FolderContract folder;
  std::map<std::string, Part> parts;  // by the component's name
  float embedding_scale = 1.0F;       // of rows from the table
  int64_t num_threads = 1;
  TurnQueue turns;
  std::weak_ptr<KeptCache> resident;  // whose rows lie in the decoder's memory

 private:
  void load_parts(const ExportFolder& files, std::vector<std::unique_ptr<EtProgram>>& programs);
  void give_sizes();
};

}  // namespace emm
