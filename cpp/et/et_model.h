// A language model that is loaded once for all its conversations: the program, its methods, and how
// these reach what a conversation remembers. Whoever calls holds a turn.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/turns.h"
#include "et/et_program.h"
#include "et/et_state.h"
#include "model/executor.h"
#include "model/load_options.h"
#include "ops/kv_cache.h"

namespace emm {

class EtModel {
 public:
  // Loads no method yet. Throws Error(kContract), or Error(kInput) for an option.
  EtModel(std::unique_ptr<EtProgram> program, const LoadOptions& options);

  EtProgram& program() { return *first_->program; }
  // One for each decoder, the chosen one first.
  const std::vector<Contract>& contracts() const { return contracts_; }
  TurnQueue& turns() { return turns_; }
  // The cache that the program leaves to us, with a sequence for each conversation; null where the
  // program has its own.
  ops::KvCache* outer_cache() const { return outer_cache_.get(); }
  std::shared_ptr<const ops::KvCache> outer_cache_owner() const { return outer_cache_; }

  // Loads what a decoder consists of, again if need be.
  void load_decoder(const Contract& contract);

  // A program that decodes, and which of its tensors lie in which memory of the state.
  struct Pointers {
    struct Target {
      executorch::aten::TensorImpl* tensor;
      size_t memory;
      uint64_t offset;
    };
    std::vector<Target> targets;
    std::map<size_t, uint8_t*> bases;  // of each memory, as the tensors point now
  };
  struct Decoding {
    std::vector<Contract> contracts;  // of an adapter; its program refers to their methods
    std::unique_ptr<EtProgram> program;
    std::map<std::string, Pointers> pointers;  // by method
    int64_t number = 0;                        // of the adapters that were loaded; 0: none
  };

  // As Executor says; the adapter's decoder takes the place of that of the contract.
  void load_adapter(const std::string& name, const AdapterFiles& files, const Contract& contract);
  void drop_adapter(const std::string& name);
  // The weights of an adapter, "" for those that were loaded first. Throws Error(kInput).
  std::shared_ptr<Decoding> decoding(const std::string& name) const;

  std::shared_ptr<EtState> new_state() const { return std::make_shared<EtState>(layout_); }
  // Runs a method of the decoder with a conversation's state, which gets num_tokens rows more.
  std::vector<TensorView> run_decoder(Decoding& decoding, const Contract& contract,
                                      const MethodSpec& method,
                                      const std::shared_ptr<EtState>& state,
                                      const std::vector<TensorView>& inputs, int64_t num_tokens,
                                      int64_t position);
  // Brings back what a call has left in the method's own memory, before somebody looks at the state
  // or changes it.
  void settle(const std::shared_ptr<EtState>& state);
  // The state is not the one that the method's own memory holds, as others have changed it.
  void forget(const std::shared_ptr<EtState>& state);

 private:
  void load(const Contract& contract, const MethodSpec& method);
  Pointers find_pointers(EtProgram& program, const Contract& contract, const std::string& method);
  void point(Decoding& decoding, const MethodSpec& method, EtState& state);
  void bring_in(EtProgram& program, const Contract& contract,
                const std::shared_ptr<EtState>& state);
  void bring_out(EtState& state);

  const LoadOptions options_;
  const std::shared_ptr<Decoding> first_;
  std::map<std::string, std::shared_ptr<Decoding>> adapters_;
  int64_t num_loaded_adapters_ = 0;
  const std::vector<Contract> contracts_;
  const std::shared_ptr<ops::KvCache> outer_cache_;
  StateLayout layout_;
  TurnQueue turns_;
  // Of decoders whose state is copied: whose state is in which program's memory.
  struct {
    std::weak_ptr<EtState> state;
    const Contract* contract = nullptr;
    EtProgram* program = nullptr;
  } resident_;
};

}  // namespace emm
