// AMX's tile instructions in plain C++, after Intel's description of them: what they compute, and
// when a processor would raise an exception instead. The kernels' own source runs on it anywhere.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

#include "linear/amx_columns.h"

namespace emm::linear {

class EmulatedTiles {
 public:
  static void configure(const TileConfig& config) {
    expect(config.palette == 1 && config.start_row == 0, "ldtilecfg: palette or first row");
    for (const uint8_t byte : config.reserved) expect(byte == 0, "ldtilecfg: reserved byte");
    for (size_t t = 0; t < 16; ++t) {
      const int rows = config.rows[t];
      const int bytes = config.row_bytes[t];
      expect(rows <= (t < 8 ? 16 : 0) && bytes <= (t < 8 ? 64 : 0), "ldtilecfg: size of a tile");
      expect((rows == 0) == (bytes == 0),
             "ldtilecfg: a tile of rows without bytes, or without rows");
      if (t < 8) state().tile[t] = {rows, bytes, {}};
    }
    state().is_configured = true;
    ++state().num_configured;
  }
  static void release() { state() = {{}, false, state().num_configured}; }

  template <int kTile>
  static void zero() {
    used(kTile).bytes = {};
  }
  template <int kTile>
  static void load(const void* from, int64_t stride) {
    Tile& tile = used(kTile);
    tile.bytes = {};
    for (int r = 0; r < tile.rows; ++r)
      std::memcpy(tile.bytes[static_cast<size_t>(r)].data(),
                  static_cast<const uint8_t*>(from) + r * stride,
                  static_cast<size_t>(tile.row_bytes));
  }
  template <int kTile>
  static void store(void* to, int64_t stride) {
    const Tile& tile = used(kTile);
    for (int r = 0; r < tile.rows; ++r)
      std::memcpy(static_cast<uint8_t*>(to) + r * stride, tile.bytes[static_cast<size_t>(r)].data(),
                  static_cast<size_t>(tile.row_bytes));
  }
  // tdpbssd
  template <int kSum, int kA, int kB>
  static void multiply() {
    static_assert(kSum != kA && kSum != kB && kA != kB, "tdpbssd: a tile twice");
    Tile& sum = used(kSum);
    const Tile& a = used(kA);
    const Tile& b = used(kB);
    expect(a.row_bytes % 4 == 0 && b.row_bytes % 4 == 0 && sum.row_bytes % 4 == 0,
           "tdpbssd: bytes that are no 32-bit number");
    expect(sum.rows == a.rows && sum.row_bytes == b.row_bytes && a.row_bytes / 4 == b.rows,
           "tdpbssd: tiles that do not match");
    for (int m = 0; m < sum.rows; ++m) {
      for (int n = 0; n < sum.row_bytes / 4; ++n) {
        uint32_t total;
        uint8_t* const at = sum.bytes[static_cast<size_t>(m)].data() + n * 4;
        std::memcpy(&total, at, 4);
        for (int k = 0; k < a.row_bytes; ++k) {
          const auto x =
              static_cast<int8_t>(a.bytes[static_cast<size_t>(m)][static_cast<size_t>(k)]);
          const auto w = static_cast<int8_t>(
              b.bytes[static_cast<size_t>(k / 4)][static_cast<size_t>(n * 4 + k % 4)]);
          total += static_cast<uint32_t>(x * w);
        }
        std::memcpy(at, &total, 4);
      }
    }
  }

  static bool is_configured() { return state().is_configured; }
  static int num_configured() { return state().num_configured; }

 private:
  struct Tile {
    int rows = 0;
    int row_bytes = 0;
    std::array<std::array<uint8_t, 64>, 16> bytes = {};
  };
  struct State {
    std::array<Tile, 8> tile;
    bool is_configured = false;
    int num_configured = 0;  // how often on this thread
  };
  static State& state() {
    thread_local State all;
    return all;
  }
  static void expect(bool holds, const char* what) {
    if (!holds) throw std::logic_error(what);
  }
  static Tile& used(int tile) {
    expect(state().is_configured, "a tile without a configuration");
    Tile& found = state().tile[static_cast<size_t>(tile)];
    expect(found.rows > 0, "a tile that the configuration leaves out");
    return found;
  }
};

using EmulatedColumns = AmxColumns<EmulatedTiles>;

// For any number of rows; quantised formats only.
extern const Kernels kEmulatedAmxKernels;

}  // namespace emm::linear
