// Reads what a program with the methods of a transducer promises and checks it.
#pragma once

#include <vector>

#include "model/transducer.h"
#include "program/program_file.h"

namespace emm {

// Throws Error(kContract) that names the method or value, what was expected and what there is.
// `encoder_state`: the buffers of the encoder that survive a call.
TransducerContract read_transducer(Signatures signatures,
                                   std::vector<StateTensor> encoder_state = {});
TransducerContract read_transducer(const ProgramInfo& program);

}  // namespace emm
