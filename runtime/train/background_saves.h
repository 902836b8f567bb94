// BackgroundSaves: the checkpoints of a training loop's runs, written beside training.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "runtime/comm/communicator.h"
#include "runtime/train/checkpointing.h"

namespace tadapt {

/// One save of all runs at a time. What is saved is copied when it begins; files are written, verified and published on
/// a thread of each rank, and the ranks tell each other at the end of a step how far they are. Everything is
/// collective, and all ranks find the same. Destroying it leaves a save under way unpublished.
class BackgroundSaves {
 public:
  /// Everything outlives it.
  BackgroundSaves(Communicator& world, std::vector<Checkpointer*> runs);

  bool under_way() const { return phase_ != Phase::kNone; }
  std::int64_t step() const { return step_; }  ///< of the save under way
  /// ShapeError while one is under way.
  void begin(std::int64_t step, TrainingState& state);
  /// Goes on with the save under way if all ranks are ready for that; the errors of Checkpointer, after which none is
  /// under way.
  void advance();
  /// Waits until none is under way.
  void finish();

 private:
  enum class Phase { kNone, kWriting, kPublishing };
  using Work = std::function<void(const std::stop_token& stop)>;

  void hand_over(Work work);
  bool idle();
  void wait_until_idle();
  void go_on();

  Communicator& world_;
  std::vector<Checkpointer*> runs_;
  Phase phase_ = Phase::kNone;
  std::int64_t step_ = 0;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  Work work_;  // being done, or to be done
  std::jthread thread_;
};

}  // namespace tadapt
