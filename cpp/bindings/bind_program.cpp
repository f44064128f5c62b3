#include <nanobind/stl/map.h>

#include "bindings/bindings.h"
#include "model/cache_kind.h"
#include "model/contract_reader.h"
#include "model/folder_reader.h"
#include "model/signatures.h"
#include "model/transducer_reader.h"
#include "program/program_check.h"
#include "program/program_file.h"

namespace emm::bindings {
namespace {

void bind_values(nb::module_& module) {
  nb::enum_<ValueKind>(module, "ValueKind")
      .value("NULL", ValueKind::kNull)
      .value("INT", ValueKind::kInt)
      .value("BOOL", ValueKind::kBool)
      .value("DOUBLE", ValueKind::kDouble)
      .value("TENSOR", ValueKind::kTensor)
      .value("STRING", ValueKind::kString)
      .value("INT_LIST", ValueKind::kIntList)
      .value("DOUBLE_LIST", ValueKind::kDoubleList)
      .value("BOOL_LIST", ValueKind::kBoolList)
      .value("TENSOR_LIST", ValueKind::kTensorList)
      .value("OPTIONAL_TENSOR_LIST", ValueKind::kOptionalTensorList);
  nb::class_<ProgramTensor>(module, "ProgramTensor", "A tensor as the file declares it.")
      .def_prop_ro("dtype",
                   [](const ProgramTensor& tensor) { return scalar_type_name(tensor.scalar_type); })
      .def_ro("sizes", &ProgramTensor::sizes, "Upper bounds where is_dynamic.")
      .def_ro("is_dynamic", &ProgramTensor::is_dynamic)
      .def_ro("data_index", &ProgramTensor::data_index, "0: no data in the program.")
      .def_ro("is_planned", &ProgramTensor::is_planned)
      .def_ro("memory_id", &ProgramTensor::memory_id)
      .def_ro("memory_offset", &ProgramTensor::memory_offset)
      .def_ro("is_external", &ProgramTensor::is_external)
      .def_ro("name", &ProgramTensor::name)
      .def_prop_ro("nbytes", tensor_bytes);
  nb::class_<ProgramValue>(module, "ProgramValue", "A value of a method.")
      .def_ro("kind", &ProgramValue::kind)
      .def_ro("integer", &ProgramValue::integer)
      .def_ro("real", &ProgramValue::real)
      .def_ro("text", &ProgramValue::text)
      .def_ro("items", &ProgramValue::items)
      .def_ro("reals", &ProgramValue::reals)
      .def_ro("tensor", &ProgramValue::tensor, "Index in the method's tensors.");
}

void bind_instructions(nb::module_& module) {
  nb::enum_<InstructionKind>(module, "InstructionKind")
      .value("KERNEL", InstructionKind::kKernel)
      .value("DELEGATE", InstructionKind::kDelegate)
      .value("MOVE", InstructionKind::kMove)
      .value("JUMP_FALSE", InstructionKind::kJumpFalse)
      .value("FREE", InstructionKind::kFree);
  nb::class_<ProgramInstruction>(module, "ProgramInstruction")
      .def_ro("kind", &ProgramInstruction::kind)
      .def_ro("index", &ProgramInstruction::index, "Of the operator or delegate.")
      .def_ro("target", &ProgramInstruction::target)
      .def_ro("args", &ProgramInstruction::args, "Indices of values.");
  nb::class_<ProgramDelegate>(module, "ProgramDelegate")
      .def_ro("id", &ProgramDelegate::id)
      .def_ro("in_segment", &ProgramDelegate::in_segment)
      .def_ro("bytes", &ProgramDelegate::bytes);
}

const char* name_of_kind(const ProgramInfo& program) {
  switch (model_kind(read_signatures(program))) {
    case ModelKind::kText:
      return "text";
    case ModelKind::kMultimodal:
      return "multimodal";
    case ModelKind::kSpeech:
      return "speech";
    case ModelKind::kSeq2Seq:
      return "seq2seq";
    case ModelKind::kTransducer:
      return "transducer";
    case ModelKind::kOther:
      break;
  }
  return "other";
}

FolderContract read_checked_folder(const ExportFolder& folder) {
  std::vector<ProgramInfo> programs;
  for (const FolderPart& part : folder.parts) programs.push_back(check_program_file(part.path));
  return read_folder(folder, programs);
}

}  // namespace

void bind_program(nb::module_& module) {
  bind_values(module);
  bind_instructions(module);
  nb::class_<CacheKind>(module, "CacheKind", "How a method keeps what it has read.")
      .def_ro("is_quantized", &CacheKind::is_quantized)
      .def_ro("bytes", &CacheKind::bytes)
      .def_prop_ro("can_rewind", &CacheKind::can_rewind)
      .def_prop_ro("name", &CacheKind::name);
  nb::class_<ProgramMethod>(module, "ProgramMethod", "A method as the file declares it.")
      .def_ro("name", &ProgramMethod::name)
      .def_ro("values", &ProgramMethod::values)
      .def_ro("tensors", &ProgramMethod::tensors)
      .def_ro("inputs", &ProgramMethod::inputs, "Indices of values.")
      .def_ro("outputs", &ProgramMethod::outputs)
      .def_ro("chains", &ProgramMethod::chains)
      .def_ro("operators", &ProgramMethod::operators)
      .def_ro("delegates", &ProgramMethod::delegates)
      .def_ro("arena_bytes", &ProgramMethod::arena_bytes, "Planned memory; entry 0 is unused.")
      .def_prop_ro("cache", [](const ProgramMethod& method) { return find_cache_kind(method); });
  nb::class_<ProgramSegment>(module, "ProgramSegment").def_ro("bytes", &ProgramSegment::bytes);
  nb::class_<ProgramInfo>(module, "ProgramInfo", "What a .pte file says.")
      .def_ro("file_bytes", &ProgramInfo::file_bytes)
      .def_ro("program_bytes", &ProgramInfo::program_bytes)
      .def_ro("version", &ProgramInfo::version)
      .def_ro("methods", &ProgramInfo::methods)
      .def_ro("segments", &ProgramInfo::segments)
      .def_prop_ro("num_named_data",
                   [](const ProgramInfo& program) { return program.named_data.size(); });
  module.def("model_kind", name_of_kind, "program"_a,
             "'text', 'multimodal', 'speech', 'seq2seq', 'transducer' or 'other'.");
  module.def(
      "read_contract", [](const ProgramInfo& program) { return read_contract(program); },
      "program"_a, "What the program promises, as a session reads it; raises ContractError.");
  nb::class_<FolderContract>(module, "FolderContract", "What the programs of a folder promise.")
      .def_ro("contract", &FolderContract::contract)
      .def_prop_ro("copied_step_bytes", &FolderContract::copied_step_bytes,
                   "Bytes of inputs that a step of one token copies, because decode plans them.");
  module.def("read_folder", read_checked_folder, "folder"_a,
             "The same of an export folder, whose programs are checked first.");
  module.def(
      "shared_memories", [](const ProgramInfo& program) { return find_sharing(program).memories; },
      "program"_a,
      "Bytes of each planned memory that the methods share, by its number; entry 0 is unused.");
  module.def(
      "read_transducer", [](const ProgramInfo& program) { return read_transducer(program); },
      "program"_a, "The same for a transducer.");
  module.def(
      "read_program", [](const FsPath& path) { return read_program_file(path.native()); },
      "path"_a.none(), "Reads a .pte file without running or judging it.");
  module.def(
      "check_program", [](const FsPath& path) { check_program_file(path.native()); }, "path"_a,
      "Raises if the file is not safe to hand to ExecuTorch.");
}

}  // namespace emm::bindings
