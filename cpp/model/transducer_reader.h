// Reads what a program with the methods of a transducer promises and checks it.
#pragma once

#include "model/transducer.h"
#include "program/program_file.h"

namespace emm {

// Throws Error(kContract) that names the method or value, what was expected and what there is.
TransducerContract read_transducer(Signatures signatures);
TransducerContract read_transducer(const ProgramInfo& program);

}  // namespace emm
