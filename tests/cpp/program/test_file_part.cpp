#include <doctest/doctest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "base/error.h"
#include "program/file_part.h"
#include "program/mapped_file.h"

using emm::find_part;

namespace {

class Folder {
 public:
  Folder() : path_(std::filesystem::temp_directory_path() / "emm_test_file_part") {
    std::filesystem::create_directories(path_);
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::string write(const std::string& name, const std::string& content) const {
    std::ofstream(path_ / name, std::ios::binary) << content;
    return (path_ / name).string();
  }

 private:
  std::filesystem::path path_;
};

std::string part_of(const std::string& path, size_t offset, size_t size) {
  struct stat facts{};
  REQUIRE(stat(path.c_str(), &facts) == 0);
  std::string text = "EMM-PART 1\n";
  for (const auto number :
       {static_cast<uint64_t>(offset), static_cast<uint64_t>(size),
        static_cast<uint64_t>(facts.st_ino), static_cast<uint64_t>(facts.st_size)})
    text += std::to_string(number) + " ";
  return text + std::to_string(facts.st_mtime) + "\n" + path;
}

std::string refusal(const std::string& path) {
  try {
    find_part(path);
  } catch (const emm::Error& error) {
    CHECK(error.code() == emm::ErrorCode::kLoad);
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("a file is whole, or stands for a part of another that is mapped in place") {
  const Folder folder;
  const std::string whole = folder.write("whole", std::string(9000, 'a') + "middle" + "end");
  const std::string part = folder.write("part", part_of(whole, 9000, 6));

  CHECK(find_part(whole).is_whole);
  CHECK(find_part(whole).size == 9009);
  const emm::FilePart found = find_part(part);
  CHECK_FALSE(found.is_whole);
  CHECK(found.path == whole);
  const emm::MappedFile mapped(part);
  CHECK(std::string(reinterpret_cast<const char*>(mapped.data()), mapped.size()) == "middle");
}

TEST_CASE("a part that is not there any more, or never was, is refused") {
  const Folder folder;
  const std::string whole = folder.write("whole", std::string(100, 'a'));

  CHECK(refusal(folder.write("outside", part_of(whole, 90, 11))).find("no part") !=
        std::string::npos);
  CHECK(refusal(folder.write("nothing", part_of(whole, 90, 0))).find("no part") !=
        std::string::npos);
  CHECK(refusal(folder.write("cut", "EMM-PART 1\n1 2 3")).find("no part") != std::string::npos);
  CHECK(refusal(folder.write("empty", "")).find("empty") != std::string::npos);
  const std::string part = folder.write("part", part_of(whole, 0, 10));
  CHECK(refusal(part).empty());
  folder.write("whole", std::string(101, 'a'));
  CHECK(refusal(part).find("has changed") != std::string::npos);
  std::filesystem::remove(whole);
  CHECK(refusal(part).find("No such file") != std::string::npos);
}
