// Ranks as threads of one process, over the real exchange algorithms: collectives without mpirun.
#pragma once

#include <algorithm>
#include <atomic>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <tuple>
#include <vector>

#include "kernels/core/error.h"
#include "runtime/comm/exchange_communicator.h"

namespace tadapt::testing {

/// The mailboxes of a job whose ranks are threads.
class ThreadWorld {
 public:
  explicit ThreadWorld(int size) : size_(size), sent_(static_cast<std::size_t>(size), 0) {}
  int size() const { return size_; }
  /// Bytes that each rank has sent; the ranks have ended.
  const std::vector<std::uint64_t>& sent() const { return sent_; }
  /// From now on every message fails, as when a rank has died.
  void fail() { failed_ = true; }

 private:
  friend class ThreadTransport;
  using Channel = std::tuple<int, int, int>;  // from, to, tag

  void put(const Channel& channel, std::span<const std::byte> bytes) {
    const std::lock_guard lock(mutex_);
    mail_[channel].emplace_back(bytes.begin(), bytes.end());
    sent_[static_cast<std::size_t>(std::get<0>(channel))] += bytes.size();
  }
  bool take(const Channel& channel, std::span<std::byte> out) {
    if (failed_) throw CommError("a rank has failed");
    const std::lock_guard lock(mutex_);
    const auto box = mail_.find(channel);
    if (box == mail_.end()) return false;
    const std::vector<std::byte> message = std::move(box->second.front());
    box->second.pop_front();
    if (box->second.empty()) mail_.erase(box);
    if (message.size() != out.size()) throw CommError("received {} bytes instead of {}", message.size(), out.size());
    std::copy(message.begin(), message.end(), out.begin());
    return true;
  }

  int size_;
  std::vector<std::uint64_t> sent_;
  std::atomic<bool> failed_ = false;
  std::mutex mutex_;
  std::map<Channel, std::deque<std::vector<std::byte>>> mail_;
};

class ThreadTransport : public Transport {
 public:
  ThreadTransport(ThreadWorld& world, int rank) : world_(world), rank_(rank) {}
  int rank() const override { return rank_; }
  int size() const override { return world_.size(); }
  std::unique_ptr<Transfer> send(int peer, int tag, std::span<const std::byte> bytes) override {
    world_.put({rank_, peer, tag}, bytes);
    return std::make_unique<Sent>();
  }
  std::unique_ptr<Transfer> receive(int peer, int tag, std::span<std::byte> bytes) override {
    return std::make_unique<Receiving>(world_, ThreadWorld::Channel{peer, rank_, tag}, bytes);
  }

 private:
  struct Sent : Transfer {
    bool done() override { return true; }
  };
  class Receiving : public Transfer {
   public:
    Receiving(ThreadWorld& world, ThreadWorld::Channel channel, std::span<std::byte> bytes)
        : world_(world), channel_(channel), bytes_(bytes) {}
    bool done() override { return received_ || (received_ = world_.take(channel_, bytes_)); }

   private:
    ThreadWorld& world_;
    ThreadWorld::Channel channel_;
    std::span<std::byte> bytes_;
    bool received_ = false;
  };
  ThreadWorld& world_;
  int rank_;
};

/// Runs body on `ranks` threads, each with the communicator of all of them. When one throws, the others' waits fail;
/// the first exception is rethrown here once all have ended. The bytes that each has sent.
inline std::vector<std::uint64_t> run_ranks(int ranks, const std::function<void(Communicator&)>& body,
                                            double timeout_seconds = 60) {
  ThreadWorld world(ranks);
  std::mutex mutex;
  std::exception_ptr first;
  const auto run = [&](int rank) {
    try {
      ProgressEngine engine(std::make_unique<ThreadTransport>(world, rank));
      engine.set_timeout(timeout_seconds);
      ExchangeCommunicator communicator(engine);
      body(communicator);
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!first) first = std::current_exception();
      world.fail();
    }
  };
  {
    std::vector<std::jthread> threads;
    for (int rank = 0; rank < ranks; ++rank) threads.emplace_back(run, rank);
  }
  if (first) std::rethrow_exception(first);
  return world.sent();
}

}  // namespace tadapt::testing
