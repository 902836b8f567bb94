// The waiting loop and the background thread.
#include "runtime/comm/progress_engine.h"

#include <algorithm>

#include "kernels/core/error.h"
#include "runtime/comm/backoff.h"

namespace tadapt {
namespace {
// A waiting caller is about to need its core again, so it may yield for a while; the own thread runs beside a caller
// that computes on possibly the same core, so it sleeps at once.
constexpr double kCallerYieldsSeconds = 3e-4;
constexpr double kOwnThreadYieldsSeconds = 0;
}  // namespace

ProgressEngine::ProgressEngine(std::unique_ptr<Transport> transport) : transport_(std::move(transport)) {}

ProgressEngine::~ProgressEngine() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

bool ProgressEngine::advance_all() {
  bool moved = false;
  for (const auto& work : works_) moved = work->advance() || moved;
  busy_ = !all_idle();
  return moved;
}

bool ProgressEngine::all_idle() const {
  return std::all_of(works_.begin(), works_.end(), [](const auto& work) { return work->idle(); });
}

Progress ProgressEngine::poll_named(const Wait& wait, const std::function<Progress()>& poll) const {
  try {
    return poll();
  } catch (const CommError& error) {
    throw CommError("rank {} of {}, peer {}, in '{}': {}", transport_->rank(), transport_->size(), wait.peer(),
                    wait.what, error.what());
  }
}

void ProgressEngine::wait(const Wait& wait, const std::function<Progress()>& poll) {
  struct Waiting {
    explicit Waiting(ProgressEngine& waiting_engine) : engine(waiting_engine) { ++engine.waiting_threads_; }
    ~Waiting() {
      if (!engine.busy_) {
        --engine.waiting_threads_;
        return;
      }
      // Under the lock, so that the own thread is either before its look at the number or already asleep.
      const std::lock_guard lock(engine.mutex_);
      --engine.waiting_threads_;
      engine.changed_.notify_one();
    }
    ProgressEngine& engine;
  } waiting(*this);
  Backoff backoff(kCallerYieldsSeconds);
  for (;;) {
    const Progress progress = poll_named(wait, poll);
    if (progress == Progress::kDone) return;
    if (progress == Progress::kMoved) backoff.restart();
    if (busy_) {
      const std::unique_lock lock(mutex_, std::try_to_lock);
      if (lock && advance_all()) continue;
    }
    backoff.pause();
    if (backoff.waited_seconds() > timeout_seconds_) {
      throw WatchdogError("rank {} of {} waited {:.0f} s for rank {} in '{}'", transport_->rank(), transport_->size(),
                          timeout_seconds_, wait.peer(), wait.what);
    }
  }
}

void ProgressEngine::add(std::shared_ptr<Work> work) {
  const std::lock_guard lock(mutex_);
  works_.push_back(std::move(work));
}

void ProgressEngine::remove(const Work* work) {
  const std::lock_guard lock(mutex_);
  std::erase_if(works_, [&](const auto& other) { return other.get() == work; });
}

void ProgressEngine::change(const std::function<void()>& change) {
  {
    const std::lock_guard lock(mutex_);
    change();
    busy_ = !all_idle();
    if (busy_ && !thread_.joinable()) thread_ = std::thread([this] { run(); });
  }
  changed_.notify_one();
}

void ProgressEngine::run() {
  Backoff backoff(kOwnThreadYieldsSeconds);
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    if (!busy_ || waiting_threads_ > 0) {
      changed_.wait(lock);
      backoff.restart();
      continue;
    }
    if (advance_all()) {
      backoff.restart();
      continue;
    }
    lock.unlock();
    backoff.pause();
    lock.lock();
  }
}

}  // namespace tadapt
