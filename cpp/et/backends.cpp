#include "et/backends.h"

#include <dlfcn.h>
#include <executorch/runtime/backend/interface.h>

#include <cstdlib>
#include <map>
#include <mutex>
#include <set>

#include "base/error.h"
#include "base/log.h"

namespace emm {
namespace {

namespace et = executorch::ET_RUNTIME_NAMESPACE;

constexpr const char* kOpenvino = "OpenvinoBackend";
constexpr const char* kXnnpack = "XnnpackBackend";
constexpr const char* kOpenvinoVariable = "OPENVINO_LIB_PATH";

const std::map<std::string, std::string>& providers() {
  static const std::map<std::string, std::string> table = {
      {kXnnpack, "executorch_mm on every platform"},
      {kOpenvino, "executorch_mm on Linux with pip install 'executorch_mm[openvino]'"},
      {"CoreMLBackend", "executorch_mm on macOS"},
      {"MLXBackend", "executorch_mm on macOS with Apple Silicon"},
      {"MPSBackend", "an ExecuTorch built with MPS on macOS"},
      {"MetalBackend", "an ExecuTorch built with AOTInductor for Metal on macOS"},
      {"CudaBackend", "ExecuTorch's CUDA build"},
      {"VulkanBackend", "an ExecuTorch built with Vulkan or WebGPU"},
      {"QnnBackend", "an ExecuTorch built with Qualcomm's QNN SDK"},
      {"NeuropilotBackend", "an ExecuTorch built with MediaTek's NeuroPilot SDK"},
      {"EnnBackend", "an ExecuTorch built with Samsung's Exynos SDK"},
      {"NeutronBackend", "an ExecuTorch built for NXP's Neutron NPU"},
      {"EthosUBackend", "an ExecuTorch built for Arm's Ethos-U"},
      {"VgfBackend", "an ExecuTorch built with Arm's ML SDK for Vulkan"},
  };
  return table;
}

// What works for a file that was exported for anything else.
constexpr const char* kExportAgain =
    "; export it again for XNNPACK, which is in every build of executorch_mm "
    "(partitioner=[XnnpackPartitioner()], export_llm's backend.xnnpack.enabled=True, "
    "optimum-cli's --recipe xnnpack)";

[[noreturn]] void refuse(const MethodSpec& method, const std::string& backend,
                         const std::string& reason) {
  const std::string provider = backend_provider(backend);
  throw Error(ErrorCode::kLoad, method.name + ": exported for " + backend + ", " + reason +
                                    (provider.empty() ? "" : "; it takes " + provider) +
                                    (backend == kXnnpack ? "" : kExportAgain));
}

// ExecuTorch's delegate opens the runtime by the name in an environment variable, once in a
// process, and never tries again after a failure: so it is only asked once the library is known to
// open.
void prepare_openvino(const MethodSpec& method, const std::string& library) {
  static std::mutex mutex;
  const std::lock_guard<std::mutex> lock(mutex);
  const char* chosen = std::getenv(kOpenvinoVariable);
  const std::string path = chosen != nullptr  ? chosen
                           : !library.empty() ? library
                                              : "libopenvino_c.so";
  if (dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL) == nullptr) {
    const char* reason = dlerror();
    refuse(method, kOpenvino,
           std::string("whose runtime cannot be opened (") + (reason ? reason : path) + ")");
  }
  if (chosen == nullptr) setenv(kOpenvinoVariable, path.c_str(), 1);
  LogCapture log;
  const bool is_ready = et::get_backend_class(kOpenvino)->is_available();
  if (chosen == nullptr) unsetenv(kOpenvinoVariable);
  if (!is_ready) refuse(method, kOpenvino, "which is not ready (" + log.text() + ")");
}

}  // namespace

std::string backend_provider(const std::string& backend) {
  const auto found = providers().find(backend);
  return found == providers().end() ? "" : found->second;
}

void require_backends(const MethodSpec& method, const std::string& openvino_library) {
  for (const std::string& name : std::set(method.backends.begin(), method.backends.end())) {
    et::BackendInterface* backend = et::get_backend_class(name.c_str());
    if (backend == nullptr) refuse(method, name, "which this build does not have");
    if (name == kOpenvino)
      prepare_openvino(method, openvino_library);
    else if (!backend->is_available())
      refuse(method, name, "which is not ready on this machine");
  }
}

}  // namespace emm
