// ProgressEngine: lets messages get on, from the threads that wait and from one thread of its own while nobody waits.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string_view>
#include <thread>
#include <vector>

#include "runtime/comm/pairwise_exchange.h"
#include "runtime/comm/transport.h"

namespace tadapt {

/// One per process, shared by all communicators. A thread that waits drives the messages itself, so that a short
/// exchange costs no hand-over between threads; its own thread only drives sums that are under way while their owner
/// computes.
class ProgressEngine {
 public:
  /// Something that is under way. advance() and idle() are only called with the engine's lock held.
  class Work {
   public:
    virtual ~Work() = default;
    /// Gets on without blocking; whether anything moved. Throws nothing.
    virtual bool advance() = 0;
    virtual bool idle() const = 0;
  };
  /// What a wait waits for, for its error message.
  struct Wait {
    std::string_view what;
    std::function<int()> peer;
  };

  explicit ProgressEngine(std::unique_ptr<Transport> transport);
  ~ProgressEngine();
  ProgressEngine(const ProgressEngine&) = delete;
  ProgressEngine& operator=(const ProgressEngine&) = delete;

  Transport& transport() { return *transport_; }
  /// Bound of every wait for one peer, from the last thing that peer let happen.
  void set_timeout(double seconds) { timeout_seconds_ = seconds; }

  /// Calls poll until it says kDone. A CommError of poll is given its context; WatchdogError naming rank, peer and
  /// operation when nothing moved for the timeout.
  void wait(const Wait& wait, const std::function<Progress()>& poll);

  /// Adds work that is driven from now on until removed (when its owner is gone).
  void add(std::shared_ptr<Work> work);
  void remove(const Work* work);
  /// Changes work under the lock; afterwards the own thread looks at it.
  void change(const std::function<void()>& change);

  /// The smallest communicator number this process has not used; raised by raise_next_id.
  int next_id() const { return next_id_; }
  void raise_next_id(int id) { next_id_ = id; }

 private:
  Progress poll_named(const Wait& wait, const std::function<Progress()>& poll) const;
  void run();
  bool advance_all();
  bool all_idle() const;

  std::unique_ptr<Transport> transport_;
  double timeout_seconds_ = 600;
  int next_id_ = 0;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::shared_ptr<Work>> works_;
  std::atomic<int> waiting_threads_ = 0;
  std::atomic<bool> busy_ = false;  ///< some work is not idle
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace tadapt
