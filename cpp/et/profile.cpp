#include "et/profile.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/error.h"
#include "base/log.h"

namespace emm {
namespace {

[[noreturn]] void refuse(const std::string& path) {
  const std::string reason = std::strerror(errno);
  throw Error(ErrorCode::kInput, "profile_path: cannot write " + path + ": " + reason);
}

}  // namespace

Profile::Profile(const std::string& path) : path_(path), file_(std::fopen(path.c_str(), "wb")) {
  if (file_ == nullptr) refuse(path);
}

Profile::~Profile() {
  try {
    write();
  } catch (const Error& error) {
    LogQueue::instance().push({LogLevel::kError, "profile.cpp", __LINE__, error.what()});
  }
}

void Profile::write() {
  if (file_ == nullptr) return;
  const auto result = dump_.get_etdump_data();  // no data where nothing ran
  const std::unique_ptr<void, decltype(&std::free)> data(result.buf, std::free);
  const size_t written = data == nullptr ? 0 : std::fwrite(data.get(), 1, result.size, file_.get());
  if (std::fclose(file_.release()) != 0 || written != result.size) refuse(path_);
}

}  // namespace emm
