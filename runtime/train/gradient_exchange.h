// GradientExchange: how gradients of a data-parallel group become one, and updated weights whole again.
#pragma once

#include <memory>
#include <vector>

#include "runtime/comm/communicator.h"
#include "runtime/train/stall_clock.h"
#include "runtime/train/training_step.h"

namespace tadapt {

/// Per trainee and step: start, join, then (where the optimiser's state is shared) start_masters, join_masters; what
/// was started runs beside other work. All ranks of the group call the same in the same order.
class GradientExchange {
 public:
  GradientExchange(Context& context, Communicator& group, TrainingState& state)
      : context_(context), group_(group), state_(state), pending_(state.trainees.size()) {}

  /// Whether there is anybody to exchange with; if not, whoever makes the gradients also fills the square sums.
  bool exchanges() const { return group_.size() > 1; }
  /// This rank's part of the trainee's gradient, statistics included, is complete.
  void start(std::size_t index);
  /// Afterwards the gradient (of this rank's part, where state is shared), the statistics and all square sums are the
  /// group's.
  void join(std::size_t index);
  /// This rank's part of the master weights is updated; does nothing where every rank updates all.
  void start_masters(std::size_t index);
  void join_masters(std::size_t index);
  /// What joining took in all: waiting for what other ranks had still to do or to send.
  double stall_seconds() const { return stall_.seconds(); }

 private:
  struct Pending {
    std::unique_ptr<PendingExchange> gradient, statistics, masters;
  };
  Context& context_;
  Communicator& group_;
  TrainingState& state_;
  std::vector<Pending> pending_;
  StallClock stall_;
};

}  // namespace tadapt
