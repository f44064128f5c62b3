#ifdef __linux__
#include "remote_model.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <utility>

#include "model/contract_reader.h"
#include "program/program_check.h"
#include "remote/remote_executor.h"
#include "remote/serve.h"

namespace emm::threads {
namespace {

const char* const kModel = "EMM_TEST_SERVED_MODEL";
const char* const kSocket = "EMM_TEST_SERVED_SOCKET";
const char* const kMemory = "EMM_TEST_SERVED_MEMORY";

}  // namespace

// A process of its own and not a fork, which ThreadSanitizer lets start no threads.
TEST_CASE("serves a model to the process that has started it" * doctest::skip()) {
  const char* const path = std::getenv(kModel);
  if (path == nullptr) return;
  LoadOptions options;
  options.model_path = path;
  options.num_threads = 1;
  remote::serve(std::make_unique<EtExecutor>(options), std::atoi(std::getenv(kSocket)),
                std::atoi(std::getenv(kMemory)));
}

RemoteSession load_remote(const LoadOptions& options) {
  std::array<int, 2> ends{};
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) == 0);
  const int memory = memfd_create("model", MFD_CLOEXEC);
  REQUIRE(memory >= 0);
  setenv(kModel, options.model_path.c_str(), 1);
  setenv(kSocket, std::to_string(ends[1]).c_str(), 1);
  setenv(kMemory, std::to_string(memory).c_str(), 1);
  const pid_t process = fork();
  REQUIRE(process >= 0);
  if (process == 0) {
    fcntl(ends[1], F_SETFD, 0);
    fcntl(memory, F_SETFD, 0);
    execl("/proc/self/exe", "test_threads", "--no-skip", "--minimal", "--test-case=serves a model*",
          nullptr);
    _exit(1);
  }
  close(ends[1]);
  auto model = std::make_shared<remote::RemoteModel>(
      read_contracts(check_program_file(options.model_path), {}),
      std::make_unique<remote::Process>(process, ends[0]),
      std::make_unique<remote::SharedMemory>(memory));
  return {std::make_shared<Session>(std::make_unique<remote::RemoteExecutor>(std::move(model))),
          process};
}

}  // namespace emm::threads
#endif
