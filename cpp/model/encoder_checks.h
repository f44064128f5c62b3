// Checks that what a program's encoders give is what its decoder takes. What does not fit is an
// Error(kContract).
#pragma once

#include "model/contract.h"

namespace emm {

// Of images and audio, whose rows stand among those of tokens.
void check_media_encoders(const Contract& contract);

// What an encoder of audio or text gives is what the decoder takes between tokens and position.
void check_encoder_decoder(const Contract& contract);

}  // namespace emm
