// The delegates ("backends") that a method needs, and whether they can run here.
#pragma once

#include <string>

#include "model/contract.h"

namespace emm {

// What a program for this backend takes to run, in a few words; empty for a name nobody knows.
std::string backend_provider(const std::string& backend);

// Throws Error(kLoad) that names the method, the backend and what provides it unless every delegate
// of the method is linked and ready. openvino_library is LoadOptions::openvino_library.
void require_backends(const MethodSpec& method, const std::string& openvino_library);

}  // namespace emm
