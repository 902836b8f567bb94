// PairwiseExchange: a planned exchange of numbers among the ranks of a group, as steps that never block.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "runtime/comm/pairwise_plan.h"
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

/// Carries out the steps of a plan on `values`, in place.
class PairwiseExchange {
 public:
  /// `values` and `scratch` must outlive it; scratch is sized by it.
  PairwiseExchange(const Group& group, std::span<float> values, std::vector<PairwiseStep> steps, int tag);

  /// Does what can be done without waiting. Throws CommError as Transfer::done does.
  Progress advance(Transport& transport, std::vector<float>& scratch);
  /// The rank of the transport it waits for; any member when it is done.
  int peer() const;

 private:
  using Arrival = PairwiseStep::Arrival;
  std::span<float> part(ElementRange range) const {
    return values_.subspan(static_cast<std::size_t>(range.begin), static_cast<std::size_t>(range.size()));
  }
  void post(Transport& transport, std::vector<float>& scratch);
  bool arrived();
  void take(const PairwiseStep& step, std::span<const float> received);

  std::span<float> values_;
  std::vector<PairwiseStep> steps_;  ///< their peers are ranks of the transport
  std::size_t current_ = 0;
  int tag_;
  bool posted_ = false;
  std::unique_ptr<Transfer> sending_, receiving_;
};

}  // namespace tadapt
