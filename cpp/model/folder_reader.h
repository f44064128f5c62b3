// How the programs of an export folder are driven: what goes into each input, where the cache is,
// and what the model promises as a whole.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "model/contract.h"
#include "model/export_folder.h"
#include "program/program_file.h"

namespace emm {

// What an input of a part takes.
enum class Feed {
  kNone,        // a constant of the program: no tensor
  kZeros,       // as when it was traced: nothing reads it
  kTypes,       // (1, tokens): zeros, which mean text
  kOnes,        // as when it was traced: nothing is padding
  kIds,         // (1, tokens)
  kEmbeddings,  // (1, tokens, hidden_size)
  kMask,        // bool (1, 1, tokens, keys): the keys that each token sees
  kFlags,       // (1, keys): the keys that are there
  kPositions,   // (tokens), (1, tokens) or (axes, 1, tokens)
  kLength,      // int64 (): positions before this call
  kCache,       // a tensor of the cache
  kMedia,       // what an encoder or a projector is for
};

struct PartInput {
  Feed feed = Feed::kNone;
  DType dtype = DType::kOther;
  Shape shape;  // kZeros, kOnes; of the others the bound
  int64_t keys =
      0;  // kMask, kFlags: columns; 0 for as many as there are positions with this call's
  size_t cache = 0;  // kCache: index in FolderContract::cache
};

struct FolderCall {
  MethodSpec method;  // `forward`
  std::string path;
  std::vector<PartInput> inputs;
  size_t result = 0;                                 // the output that is wanted
  std::vector<std::optional<size_t>> cache_outputs;  // where each tensor of the cache comes out
  int64_t max_tokens = 0;                            // of a call; of encoders 0
};

// One tensor that lives from call to call. What the decoder takes is in one memory of ours, or
// where the decoder's plan has it.
struct CacheTensor {
  std::string name;
  StateKind kind = StateKind::kFlat;
  DType dtype = DType::kOther;
  Shape shape;                 // with the rows that are used; of one that grows the bound
  bool grows = false;          // with each call: has as many rows as there are positions
  uint64_t memory_bytes = 0;   // all that a call could fill
  bool is_in_place = false;    // the decoder changes its input
  bool is_planned = false;     // and copies what it is given to its own memory
  std::optional<size_t> kept;  // where in that memory it stays untouched between calls
  size_t arena_buffer = 0;

  int64_t rows() const { return shape.size() == 4 ? shape[2] : 1; }
};

// Rows of token embeddings, read from the decoder's file.
struct EmbeddingTable {
  uint64_t offset = 0;
  int64_t rows = 0;
  int64_t columns = 0;
  DType dtype = DType::kOther;
};

struct FolderContract {
  Contract contract;
  std::vector<CacheTensor> cache;
  FolderCall decode;
  std::optional<FolderCall> prefill;         // or, of multimodal models,
  std::optional<FolderCall> language_model;  // both from position 0 on
  std::optional<FolderCall> lm_head;
  std::optional<FolderCall> image_encoder;
  std::optional<FolderCall> audio_encoder;
  // What makes rows of embeddings of what the encoders give.
  std::optional<FolderCall> image_projector;
  std::optional<FolderCall> audio_projector;
  std::optional<EmbeddingTable> embeddings;
  bool skips_first_feature = false;

  // Bytes of inputs that a call of decode with one token copies; of a cache that grows the most.
  int64_t copied_step_bytes() const;
};

// `programs`: of the folder's parts, in their order. Throws Error(kContract) that names the part,
// what was expected and what it has, Error(kInput) for a request that cannot be met.
FolderContract read_folder(const ExportFolder& folder, const std::vector<ProgramInfo>& programs,
                           int64_t max_context_len = 0);

}  // namespace emm
