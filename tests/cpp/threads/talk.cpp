#include "talk.h"

#include <doctest/doctest.h>

#include <mutex>
#include <utility>

namespace emm::threads {
namespace {

// The first tokens of all prompts are the same.
Ids prompt_of(int number) { return {5, 9, 2, 33, 17, 4 + number, 8}; }
constexpr int kNumPrompts = 4;
constexpr int64_t kCommon = 5;
constexpr int64_t kCount = 7;

struct Wanted {
  Tokens first;
  Tokens second;  // the answer after that
};
using AllWanted = std::vector<Wanted>;

// As executorch_mm/_engine/prefix_store.py keeps them: forks at the ends of prompts, for whoever
// comes with a prompt that begins so.
class Store {
 public:
  struct Kept {
    std::shared_ptr<Session> session;
    int number = 0;
  };

  void keep(Session& session, int number) {
    Kept kept{session.fork(session.lowest_rewind() > 1), number};
    kept.session->memory();
    const std::lock_guard<std::mutex> lock(mutex_);
    if (all_.size() == 4) all_.erase(all_.begin());
    all_.push_back(std::move(kept));
  }
  Kept any(std::mt19937& chance) {
    const std::lock_guard<std::mutex> lock(mutex_);
    return all_.empty() ? Kept() : all_[chance() % all_.size()];
  }

 private:
  std::mutex mutex_;
  std::vector<Kept> all_;
};

class Talk {
 public:
  Talk(const std::function<std::shared_ptr<Session>()>& make, Store& store,
       const AllWanted& all_wanted, int seed)
      : make_(make),
        store_(store),
        all_wanted_(all_wanted),
        chance_(static_cast<unsigned>(seed)),
        session_(make()) {}

  void go_on() {
    if (chance_() % 4 == 0) session_ = make_();
    session_->set_priority(static_cast<int64_t>(chance_() % 2));
    if (chance_() % 2 == 0 || !take_over()) {
      number_ = static_cast<int>(chance_() % kNumPrompts);
      session_->reset();
      read(*session_, prompt_of(number_));
    }
    switch (chance_() % 6) {
      case 0:
        expect_first(session_);
        expect(answer(session_, kCount), wanted().second);
        break;
      case 1: {
        const std::shared_ptr<Session> fork = session_->fork();
        expect_first(fork);
        expect_first(session_);
        break;
      }
      case 2: {
        const auto saved = session_->save();
        answer(session_, 2);
        session_ = make_();
        session_->restore(*saved);
        expect_first(session_);
        break;
      }
      case 3:
        expect_first(session_);
        go_back();
        break;
      case 4:
        be_cancelled();
        break;
      default:
        store_.keep(*session_, number_);
        session_->units();
        session_->memory();
        session_->history();
        expect_first(session_);
    }
  }
  int num_wrong() const { return num_wrong_; }
  int num_taken_over() const { return num_taken_over_; }

 private:
  const Wanted& wanted() const { return all_wanted_[static_cast<size_t>(number_)]; }
  void expect(const Tokens& found, const Tokens& expected) { num_wrong_ += found != expected; }
  void expect_first(const std::shared_ptr<Session>& session) {
    expect(answer(session, kCount), wanted().first);
  }

  bool take_over() {
    const Store::Kept kept = store_.any(chance_);
    if (kept.session == nullptr) return false;
    ++num_taken_over_;
    if (kept.session->lowest_rewind() > kCommon) {
      number_ = kept.number;
      session_->go_on_from(*kept.session);
      return true;
    }
    number_ = static_cast<int>(chance_() % kNumPrompts);
    session_->go_on_from(*kept.session, kCommon);
    const Ids ids = prompt_of(number_);
    read(*session_, Ids(ids.begin() + kCommon, ids.end()));
    return true;
  }

  void go_back() {
    const Ids ids = prompt_of(number_);
    const auto end = static_cast<int64_t>(ids.size()) - 1;
    if (session_->lowest_rewind() > end) return;
    session_->rewind(end);
    read(*session_, {ids.back()});
    expect_first(session_);
  }

  void be_cancelled() {
    std::thread other([session = session_] { session->cancel(); });
    const Tokens found = answer(session_, kCount);
    other.join();
    const auto end = wanted().first.begin() + static_cast<std::ptrdiff_t>(found.size());
    expect(found, Tokens(wanted().first.begin(), end));
  }

  const std::function<std::shared_ptr<Session>()>& make_;
  Store& store_;
  const AllWanted& all_wanted_;
  std::mt19937 chance_;
  std::shared_ptr<Session> session_;
  int number_ = 0;
  int num_wrong_ = 0;
  int num_taken_over_ = 0;
};

AllWanted alone(const LoadOptions& options) {
  const std::shared_ptr<Session> session = load(options);
  AllWanted all;
  for (int number = 0; number < kNumPrompts; ++number) {
    session->reset();
    read(*session, prompt_of(number));
    Tokens first = answer(session, kCount);
    all.push_back({std::move(first), answer(session, kCount)});
  }
  return all;
}

}  // namespace

void expect_as_alone(Session& model, const LoadOptions& options, int num_rounds) {
  const AllWanted wanted = alone(options);
  Store store;
  std::mutex mutex;  // a session serves one at a time
  const std::function<std::shared_ptr<Session>()> make = [&] {
    const std::lock_guard<std::mutex> lock(mutex);
    return std::shared_ptr<Session>(model.another());
  };
  std::atomic<int> num_wrong{0};
  std::atomic<int> num_taken_over{0};
  const int num_thrown = at_once([&](int number) {
    Talk talk(make, store, wanted, number);
    for (int round = 0; round < num_rounds; ++round) talk.go_on();
    num_wrong += talk.num_wrong();
    num_taken_over += talk.num_taken_over();
  });
  CHECK(num_thrown == 0);
  CHECK(num_wrong == 0);
  CHECK(num_taken_over > 0);
}

}  // namespace emm::threads
