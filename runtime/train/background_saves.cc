#include "runtime/train/background_saves.h"

#include <algorithm>
#include <utility>

#include "kernels/core/error.h"

namespace tadapt {

BackgroundSaves::BackgroundSaves(Communicator& world, std::vector<Checkpointer*> runs)
    : world_(world), runs_(std::move(runs)), thread_([this](const std::stop_token& stop) {
        std::unique_lock lock(mutex_);
        while (changed_.wait(lock, stop, [this] { return static_cast<bool>(work_); })) {
          const Work work = work_;
          lock.unlock();
          work(stop);
          lock.lock();
          work_ = {};
          changed_.notify_all();
        }
      }) {}

void BackgroundSaves::hand_over(Work work) {
  const std::lock_guard lock(mutex_);
  work_ = std::move(work);
  changed_.notify_all();
}

bool BackgroundSaves::idle() {
  const std::lock_guard lock(mutex_);
  return !work_;
}

void BackgroundSaves::wait_until_idle() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !work_; });
}

void BackgroundSaves::begin(std::int64_t step, TrainingState& state) {
  require_shape(!under_way(), "a save of step {} while that of step {} is under way", step, step_);
  for (Checkpointer* run : runs_) run->begin(step, state, Hold::kCopy);
  step_ = step;
  phase_ = Phase::kWriting;
  hand_over([this](const std::stop_token& stop) {
    for (Checkpointer* run : runs_) run->write(stop);
  });
}

void BackgroundSaves::advance() {
  if (!under_way()) return;
  const double mine = idle() ? 1.0 : 0.0;
  const std::vector<double> all = world_.all_gather({&mine, 1}, "how far a checkpoint is");
  if (std::ranges::all_of(all, [](double ready) { return ready > 0.0; })) go_on();
}

/// This rank's work is done; the others' too, or they are waited for.
void BackgroundSaves::go_on() {
  const Phase done = std::exchange(phase_, Phase::kNone);
  if (done == Phase::kPublishing) {
    for (Checkpointer* run : runs_) run->conclude();
    return;
  }
  for (Checkpointer* run : runs_) run->gather();
  phase_ = Phase::kPublishing;
  hand_over([this](const std::stop_token&) {
    for (Checkpointer* run : runs_) run->commit();
  });
}

void BackgroundSaves::finish() {
  while (under_way()) {
    wait_until_idle();
    go_on();
  }
}

}  // namespace tadapt
