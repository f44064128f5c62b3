// What the methods of a program take and give, and the values of the constant ones, as its file
// says.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "model/contract.h"
#include "program/program_file.h"

namespace emm {

// Of ExecuTorch's ScalarType; kOther for what nobody may exchange with a model.
DType to_dtype(int8_t scalar_type);

// The signatures of all methods by name, whatever the program is for.
std::map<std::string, MethodSpec> read_methods(const ProgramInfo& program);

// Of the methods with inputs, and the values of those without. Tensors are no metadata.
Signatures read_signatures(const ProgramInfo& program);

// What a program with these methods is.
ModelKind model_kind(const Signatures& signatures);

// The methods that make logits of tokens and a position, or with `hidden_size` of embeddings of so
// many features.
std::vector<std::string> find_decoders(const Signatures& signatures, int64_t hidden_size = 0);

// The methods that make logits of tokens, positions and embeddings.
std::vector<std::string> find_joint_decoders(const Signatures& signatures);

}  // namespace emm
