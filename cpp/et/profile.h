// An ETDump of everything that the traced methods do, kept in memory and written to a file.
#pragma once

#include <executorch/devtools/etdump/etdump_flatcc.h>

#include <cstdio>
#include <memory>
#include <string>

namespace emm {

class Profile {
 public:
  // Creates the file. Throws Error(kInput) where that is not possible.
  explicit Profile(const std::string& path);
  // Writes what has not been written; a failure is logged.
  ~Profile();
  Profile(const Profile&) = delete;
  Profile& operator=(const Profile&) = delete;

  executorch::runtime::EventTracer* tracer() { return &dump_; }

  // Forgets what was traced so far.
  void restart() { dump_.reset(); }

  // Ends the profile; only the first call does something. Throws Error(kInput).
  void write();

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };

  std::string path_;
  std::unique_ptr<std::FILE, Close> file_;  // null once written
  executorch::etdump::ETDumpGen dump_;
};

}  // namespace emm
