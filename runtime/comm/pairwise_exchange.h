// PairwiseExchange: the sum of one array over a group of ranks, as steps that never block.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "runtime/comm/transport.h"

namespace tadapt {

/// What happened when something was asked to get on.
enum class Progress { kIdle, kMoved, kDone };

/// A group as its member `rank` sees it.
struct Group {
  std::vector<int> members;  ///< ranks of the transport, in the group's order
  int rank = 0;              ///< place of this process in `members`
  int size() const { return static_cast<int>(members.size()); }
};

/// In-place sum of `values` over the group, whose size is a power of two, in the tree of Communicator::start_sum.
///
/// Short arrays go whole to the partner at distance 1, 2, 4, …. Longer ones are halved at each distance, on block
/// borders (the lower rank keeps the lower half), and the finished parts travel back in the opposite order: the same
/// additions, and 2(1 − 1/G) times the bytes instead of log2(G) times.
class PairwiseExchange {
 public:
  /// `values` and `scratch` must outlive it; scratch is sized by it.
  PairwiseExchange(const Group& group, std::span<float> values, int tag);

  /// Does what can be done without waiting. Throws CommError as Transfer::done does.
  Progress advance(Transport& transport, std::vector<float>& scratch);
  /// The rank of the transport it waits for; any member when it is done.
  int peer() const;

 private:
  enum class Arrival { kAddOnTheRight, kAddOnTheLeft, kCopy };
  struct Step {
    int peer;
    std::span<float> out;  ///< what the peer gets
    std::span<float> in;   ///< where its numbers go
    Arrival arrival;
  };
  void post(Transport& transport, std::vector<float>& scratch);
  bool arrived();
  void take(const Step& step, std::span<const float> received);

  std::vector<Step> steps_;
  std::size_t current_ = 0;
  int tag_;
  bool posted_ = false;
  std::unique_ptr<Transfer> sending_, receiving_;
};

}  // namespace tadapt
