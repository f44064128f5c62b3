// The graph that an XNNPACK delegate carries, checked before XNNPACK reads it: XNNPACK takes sizes
// and indices as they come.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace emm {

// An argument of the delegate's call.
struct XnnpackExternal {
  uint32_t id = 0;  // which argument
  bool is_output = false;
  uint8_t element_bytes = 0;
  std::vector<uint32_t> dims;
};

// Bytes of the named data, nothing where it is not in this file.
using NamedBytes = std::function<std::optional<uint64_t>(std::string_view key)>;

// Reads and checks a delegate's data; throws Error(kLoad) naming what is wrong, `what` first.
std::vector<XnnpackExternal> check_xnnpack_graph(const uint8_t* data, size_t size,
                                                 const std::string& what,
                                                 const NamedBytes& named_bytes);

}  // namespace emm
