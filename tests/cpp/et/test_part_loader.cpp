#include <doctest/doctest.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <string>

#include "base/error.h"
#include "et/part_loader.h"

using emm::LoadMode;
using executorch::runtime::DataLoader;
using executorch::runtime::Error;

TEST_CASE("a part of a file is data of its own, in each way of loading") {
  const auto path = std::filesystem::temp_directory_path() / "emm_test_part_loader";
  std::string content(20000, 'x');
  for (size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(i % 251);
  std::ofstream(path, std::ios::binary) << content;
  const DataLoader::SegmentInfo info(DataLoader::SegmentInfo::Type::Backend);

  for (const LoadMode mode : {LoadMode::kMmap, LoadMode::kMmapMlock, LoadMode::kFile}) {
    const auto loader = emm::load_part({path.string(), 4096, 10000, false}, mode);
    CHECK(*loader->size() == 10000);
    for (const size_t offset : {size_t{0}, size_t{1}, size_t{5000}, size_t{9999}}) {
      auto buffer = loader->load(offset, 10000 - offset, info);
      REQUIRE(buffer.ok());
      CHECK(std::string(static_cast<const char*>(buffer->data()), buffer->size()) ==
            content.substr(4096 + offset, 10000 - offset));
    }
    std::array<char, 7> read{};
    CHECK(loader->load_into(100, read.size(), info, read.data()) == Error::Ok);
    CHECK(std::string(read.data(), read.size()) == content.substr(4196, 7));
    CHECK(loader->load(10000, 0, info).ok());
    CHECK(loader->load(9999, 2, info).error() == Error::InvalidArgument);
    CHECK(loader->load_into(size_t{1} << 62, 1, info, read.data()) == Error::InvalidArgument);
  }
  std::filesystem::remove(path);
  CHECK_THROWS_AS(emm::load_part({path.string(), 0, 1, false}, LoadMode::kMmap), emm::Error);
}
