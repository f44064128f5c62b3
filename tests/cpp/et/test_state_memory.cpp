// Where a conversation's state lies, and what forks of it see.
#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <utility>
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
    const std::vector<uint8_t> bytes(static_cast<size_t>(count * kRowBytes), value);
    for (const int64_t block : {int64_t{0}, kRows}) {
      const auto offset = static_cast<size_t>((block + first) * kRowBytes);
      if (value % 2 == 0)  // as a call does, or as a file is restored
        std::copy(bytes.begin(), bytes.end(), state->at(contract, 0) + offset);
      else
        state->write(contract, 0, offset, bytes.data(), bytes.size());
    }
    rows.resize(static_cast<size_t>(first));
    rows.resize(static_cast<size_t>(first + count), value);
    if (contract.state.size() > 1) {
      whole = value;
      std::fill_n(state->at(contract, 1), 4096, value);
    }
  }

  Conversation fork() { return fork(rows.size()); }
  Conversation fork(size_t num_rows) {
    const auto used = static_cast<int64_t>(rows.size());
    auto child = state->fork(contract, static_cast<int64_t>(num_rows), used);
    const auto end = rows.begin() + static_cast<std::ptrdiff_t>(num_rows);
    return {contract, std::move(child), {rows.begin(), end}, whole};
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

TEST_CASE("bytes written to a memory are there, and in no memory that only shares its rows") {
  constexpr size_t kBytes = 100'000;
  StateMemory owner(kBytes);
  std::vector<uint8_t> expected(kBytes);
  std::mt19937 chance(17);
  const auto write_some = [&](StateMemory& memory, std::vector<uint8_t>& known) {
    const size_t offset = chance() % kBytes;
    std::vector<uint8_t> bytes(chance() % (kBytes - offset) + 1);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(chance());
    memory.write(offset, bytes.data(), bytes.size());
    std::copy(bytes.begin(), bytes.end(), known.begin() + static_cast<std::ptrdiff_t>(offset));
  };
  for (int i = 0; i < 50; ++i) write_some(owner, expected);
  CHECK(std::equal(expected.begin(), expected.end(), owner.data()));
  const auto shared = owner.share(1);
  if (shared == nullptr) return;  // this system has none
  std::vector<uint8_t> theirs = expected;
  for (int i = 0; i < 50; ++i) write_some(*shared, theirs);
  CHECK(std::equal(theirs.begin(), theirs.end(), shared->data()));
  CHECK(std::equal(expected.begin(), expected.end(), owner.data()));
}

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

TEST_CASE("whoever goes on from the first rows of another leaves it all of its rows") {
  for (const bool has_whole : {false, true}) {
    CAPTURE(has_whole);
    const Contract contract = make_contract(has_whole);
    const Layout layout(contract);
    Conversation first{contract, std::make_shared<EtState>(layout), {}};
    first.write(0, 10, 1);
    Conversation second = first.fork();
    second.write(10, 40, 2);  // more of its own than is shared
    Conversation third = second.fork(20);
    Conversation fourth = second.fork(5);
    CHECK(second.is_right());
    first.state.reset();
    CHECK(second.is_right());
    third.write(20, 1, 3);
    fourth.write(5, 1, 4);
    second.write(50, 1, 5);
    for (Conversation* each : {&second, &third, &fourth}) CHECK(each->is_right());
  }
}

TEST_CASE("whatever conversations write, fork and forget, each sees its own rows") {
  for (const bool has_whole : {false, true}) {
    CAPTURE(has_whole);
    const Contract contract = make_contract(has_whole);
    const Layout layout(contract);
    std::mt19937 random(17);
    const auto below = [&](size_t end) { return static_cast<size_t>(random() % end); };
    std::vector<std::unique_ptr<Conversation>> all;
    const auto begin = [&] {
      return std::make_unique<Conversation>(
          Conversation{contract, std::make_shared<EtState>(layout), {}});
    };
    for (int i = 0; i < 5; ++i) all.push_back(begin());
    int num_wrong = 0;
    for (int step = 0; step < 3000; ++step) {
      std::unique_ptr<Conversation>& one = all[below(all.size())];
      const size_t what = below(10);
      if (what == 0) {
        one = begin();
      } else if (what < 5) {
        Conversation& other = *all[below(all.size())];
        // Half of the time all of it, as fork() does, or else as going on from it does.
        const size_t used = other.rows.size();
        const size_t num_rows = below(2) == 0 ? used : below(used + 1);
        one = std::make_unique<Conversation>(other.fork(num_rows));
      } else {
        const size_t first = below(one->rows.size() + 1);
        const size_t room = static_cast<size_t>(kRows) - first;
        if (room > 0)
          one->write(static_cast<int64_t>(first), static_cast<int64_t>(1 + below(room)),
                     static_cast<uint8_t>(1 + step % 250));
      }
      for (const auto& each : all) num_wrong += each->is_right() ? 0 : 1;
    }
    CHECK(num_wrong == 0);
  }
}

TEST_CASE("rows that nobody claims any more are given back to the system") {
  constexpr size_t kPage = 65536;  // of any system, or several of them
  auto owner = std::make_unique<StateMemory>(8 * kPage, std::vector<RowBlocks>{{0, 2, 4, kPage}});
  if (!owner->has_file()) return;  // not on this system: forks are copies
  std::fill_n(owner->data(), 8 * kPage, uint8_t{7});
  auto most = owner->share(3);
  const auto least = owner->share(1);
  const auto seen = [&] {
    std::vector<int> rows;
    for (size_t row = 0; row < 8; ++row) rows.push_back(least->data()[row * kPage + 5]);
    return rows;
  };
  CHECK(seen() == std::vector<int>{7, 7, 7, 7, 7, 7, 7, 7});
  owner->stop_owning(2);
  CHECK(seen() == std::vector<int>{7, 7, 7, 0, 7, 7, 7, 0});
  most.reset();
  CHECK(seen() == std::vector<int>{7, 7, 0, 0, 7, 7, 0, 0});
  owner.reset();
  CHECK(seen() == std::vector<int>{7, 0, 0, 0, 7, 0, 0, 0});
}

TEST_CASE("a conversation's memory is counted by pages, and once where it is shared") {
  const Contract contract = make_contract(false);
  const Layout layout(contract);
  Conversation first{contract, std::make_shared<EtState>(layout), {}};
  const auto count = [&](const Conversation& one) {
    std::vector<std::pair<const void*, int64_t>> uses;
    for (const MemoryUse& use : one.state->memory(contract, static_cast<int64_t>(one.rows.size())))
      uses.emplace_back(use.place, use.bytes);
    return uses;
  };
  CHECK(count(first).empty());
  first.write(0, 40, 1);
  const auto uses = count(first);
  REQUIRE(uses.size() == 1);
  CHECK(uses[0].second >= 2 * 40 * kRowBytes);
  CHECK(uses[0].second <= 2 * (40 * kRowBytes + 2 * 65536));
  const Conversation second = first.fork();
  const Conversation third = first.fork(8);
  const auto forked = count(second);
  REQUIRE(forked.size() == 1);
  CHECK(forked[0].second == uses[0].second);
  CHECK(count(third)[0].second < uses[0].second);
  StateMemory probe(1);
  if (!probe.has_file()) return;  // not on this system: forks are copies
  CHECK(forked[0].first == uses[0].first);
  CHECK(count(third)[0].first == uses[0].first);
  Conversation fourth = first.fork();
  fourth.write(40, 8, 2);
  REQUIRE(count(fourth).size() == 2);  // what is shared, and what it has written
  CHECK(count(fourth)[0] == uses[0]);
  CHECK(count(fourth)[1].second >= 2 * 8 * kRowBytes);
}

TEST_CASE("a memory that is shared shows the owner's writes until it stops owning") {
  StateMemory owner(10000);
  if (!owner.has_file()) return;  // not on this system: forks are copies
  owner.data()[5] = 1;
  const auto other = owner.share(0);
  CHECK(other->data()[5] == 1);
  CHECK(owner.is_shared());
  owner.data()[9000] = 2;
  CHECK(other->data()[9000] == 2);
  owner.stop_owning(0);
  owner.data()[5] = 3;
  CHECK(other->data()[5] == 1);
  other->data()[9000] = 4;
  CHECK(owner.data()[9000] == 2);
}
