// What encoders made of media, for all conversations with a model: the same content is encoded
// once, whatever stands before it. What was not asked for longest goes first.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/tensor_view.h"

namespace emm {

class EncoderCache {
 public:
  struct Rows {
    TensorView view;  // of `bytes`
    std::vector<uint8_t> bytes;
  };
  struct Counts {
    int64_t num_entries = 0;
    int64_t num_bytes = 0;
    int64_t num_hits = 0;
    int64_t num_misses = 0;
  };

  explicit EncoderCache(int64_t max_bytes) : max_bytes_(max_bytes) {}

  int64_t max_bytes() const { return max_bytes_; }

  // Null where it is not there.
  std::shared_ptr<const Rows> find(const std::string& encoder, const std::string& content);
  // Copies the rows, unless they alone are more than there is room for.
  void add(const std::string& encoder, const std::string& content, const TensorView& rows);
  void clear();
  Counts counts() const;

 private:
  using Key = std::pair<std::string, std::string>;
  struct Entry {
    Key key;
    std::shared_ptr<const Rows> rows;
    int64_t bytes = 0;
  };

  void drop_last();

  const int64_t max_bytes_;
  mutable std::mutex mutex_;
  std::list<Entry> entries_;  // who was asked for last is first
  std::map<Key, std::list<Entry>::iterator> places_;
  Counts counts_;
};

}  // namespace emm
