// Where a conversation's state lies, and what forks of it see.
#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "et/et_state.h"
#include "et/state_memory.h"

using namespace emm;

namespace {

constexpr int64_t kRows = 64;
constexpr int64_t kRowBytes = 1024;

// A flat cache of two blocks, and where wanted a recurrence behind it.
Contract make_contract(bool has_whole) {
  Contract contract;
  contract.state.push_back({StateKind::kFlat, 1, 256, 2, kRows, kRowBytes, false});
  if (has_whole)
    contract.state.push_back({StateKind::kWhole, 1, 256 + 2 * kRows * kRowBytes, 1, 1, 4096, true});
  return contract;
}

struct Conversation {
  const Contract& contract;
  std::shared_ptr<EtState> state;
  std::vector<uint8_t> rows;  // what each row of it holds
  uint8_t whole = 9;

  void write(int64_t first, int64_t count, uint8_t value) {
    state->begin_write(contract, first);
    for (int64_t row = first; row < first + count; ++row) {
      for (const int64_t block : {int64_t{0}, kRows})
        std::fill_n(state->at(contract, 0) + (block + row) * kRowBytes, kRowBytes, value);
    }
    rows.resize(static_cast<size_t>(first));
    rows.resize(static_cast<size_t>(first + count), value);
    if (contract.state.size() > 1) {
      whole = value;
      std::fill_n(state->at(contract, 1), 4096, value);
    }
  }

  Conversation fork() {
    return {contract, state->fork(contract, static_cast<int64_t>(rows.size())), rows, whole};
  }

  bool is_right() {
    for (size_t row = 0; row < rows.size(); ++row) {
      for (const int64_t block : {int64_t{0}, kRows}) {
        const uint8_t* const bytes =
            state->at(contract, 0) + (block + static_cast<int64_t>(row)) * kRowBytes;
        if (bytes[0] != rows[row] || bytes[kRowBytes - 1] != rows[row]) return false;
      }
    }
    return contract.state.size() < 2 || state->at(contract, 1)[17] == whole;
  }
};

struct Layout : StateLayout {
  explicit Layout(const Contract& contract) {
    add(contract, {});
    std::vector<uint8_t> page(4096, 9);
    const uint64_t whole = 256 + 2 * kRows * kRowBytes;
    if (contract.state.size() > 1)
      memories[0].starts.push_back({{whole, page}});
    else
      memories[0].starts.push_back({});
  }
};

}  // namespace

TEST_CASE("a state starts as loading left it, and does so again after a reset") {
  const Contract contract = make_contract(true);
  const Layout layout(contract);
  EtState state(layout);
  CHECK(state.at(contract, 0)[0] == 0);
  CHECK(state.at(contract, 1)[4095] == 9);
  state.at(contract, 1)[4095] = 1;
  state.reset();
  CHECK(state.at(contract, 1)[4095] == 9);
}

TEST_CASE("a method that is loaded later writes its start into states that have not changed it") {
  const Contract contract = make_contract(true);
  Layout layout(contract);
  EtState state(layout);
  state.at(contract, 1)[0] = 5;
  const uint64_t whole = contract.state[1].offset;
  layout.memories[0].starts.push_back({{whole, std::vector<uint8_t>(4096, 7)}});
  CHECK(state.at(contract, 1)[0] == 5);
  CHECK(state.at(contract, 1)[1] == 7);
}

TEST_CASE("forks and forks of forks see what was there, and no later write of another") {
  for (const bool has_whole : {false, true}) {
    CAPTURE(has_whole);
    const Contract contract = make_contract(has_whole);
    const Layout layout(contract);
    Conversation first{contract, std::make_shared<EtState>(layout), {}};
    first.write(0, 10, 1);
    Conversation second = first.fork();
    Conversation third = first.fork();
    first.write(10, 3, 2);
    second.write(10, 3, 3);
    Conversation fourth = second.fork();  // with rows of its own
    second.write(5, 20, 4);               // goes back
    Conversation fifth = second.fork();   // has more of its own than is shared
    first.write(2, 2, 5);                 // below what was lent
    fourth.write(13, 2, 6);
    Conversation sixth = fourth.fork();
    Conversation seventh = fifth.fork();
    fifth.write(25, 2, 7);
    sixth.write(0, 1, 8);
    for (Conversation* each : {&first, &second, &third, &fourth, &fifth, &sixth, &seventh})
      CHECK(each->is_right());
    third.write(10, 1, 10);
    CHECK(third.is_right());
    CHECK(first.is_right());
  }
}

TEST_CASE("who lent rows goes on in place while it writes behind them, and once nobody has them") {
  const Contract contract = make_contract(false);
  const Layout layout(contract);
  Conversation first{contract, std::make_shared<EtState>(layout), {}};
  first.write(0, 10, 1);
  const uint8_t* const place = first.state->at(contract, 0);
  {
    Conversation second = first.fork();
    first.write(10, 2, 2);
    CHECK(second.is_right());
    second.state.reset();
  }
  first.write(0, 4, 3);
  CHECK(first.state->at(contract, 0) == place);
  CHECK(first.is_right());
}

TEST_CASE("a memory that is shared shows the owner's writes until it stops owning") {
  StateMemory owner(10000);
  if (!owner.has_file()) return;  // not on this system: forks are copies
  owner.data()[5] = 1;
  const auto other = owner.share();
  CHECK(other->data()[5] == 1);
  CHECK(owner.is_shared());
  owner.data()[9000] = 2;
  CHECK(other->data()[9000] == 2);
  owner.stop_owning();
  owner.data()[5] = 3;
  CHECK(other->data()[5] == 1);
  other->data()[9000] = 4;
  CHECK(owner.data()[9000] == 2);
}
