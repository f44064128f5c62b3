// Files that stand for a part of another one, so that what lies in a bundle is used in place.
//
// Such a file holds three lines: "EMM-PART 1"; offset and size of the part, inode number, size and
// time of change in seconds of the other file; its path.
#pragma once

#include <cstddef>
#include <string>

namespace emm {

struct FilePart {
  std::string path;  // of the file that holds the bytes
  size_t offset = 0;
  size_t size = 0;
  bool is_whole = true;
};

// Where the bytes of a file are. Throws Error(kLoad) where it cannot be opened, is no regular file,
// is empty, or stands for a part of a file that is gone or another one by now.
FilePart find_part(const std::string& path);

}  // namespace emm
