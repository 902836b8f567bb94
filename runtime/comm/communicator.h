// Communicator: the few collectives tadapt uses, each with the same bits on any number of ranks and a bound on its
// wait.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/tensor.h"

namespace tadapt {

/// A sum that was started and runs while its caller computes. Destroying it unfinished abandons it: the group's ranks
/// no longer agree, so that is only done while an error ends the job.
class PendingSum {
 public:
  virtual ~PendingSum() = default;
  /// Whether the result is there. Never blocks, throws nothing; a failed sum counts as done.
  virtual bool done() const = 0;
  /// Returns when the result is there; throws CommError (rank, peer, label) or WatchdogError (the bound ran out).
  virtual void wait() = 0;
};

/// A sum that had nothing to wait for.
class FinishedSum : public PendingSum {
 public:
  bool done() const override { return true; }
  void wait() override {}
};

/// A group of ranks. Its ranks call the same operations in the same order, each rank from one thread at a time; sums
/// that are under way may overlap anything. `what` names the operation in error messages ("metrics of step 12").
/// All operations throw CommError when a peer or the network fails and WatchdogError when a wait outlasts the timeout.
class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  /// Returns once every rank has called it.
  virtual void barrier(std::string_view what) = 0;
  /// Every rank's values, rank after rank; all ranks pass equally many.
  virtual std::vector<double> all_gather(std::span<const double> values, std::string_view what) = 0;
  /// Every rank's text, of any sizes (also empty), in rank order.
  virtual std::vector<std::string> all_gather_text(std::string_view text, std::string_view what) = 0;
  /// The text of rank `root`; the other ranks' `text` is not looked at.
  virtual std::string broadcast_text(std::string_view text, int root, std::string_view what) = 0;

  /// Starts the in-place sum over all ranks of float32 values, which must stay untouched and alive until it is done.
  /// Ranks join at distance 1, 2, 4, …: ((r0 + r1) + (r2 + r3)) + …, lower + higher, elementwise in float32, so
  /// the result is bit-identical on all ranks and does not depend on how the values are cut into several sums.
  /// ConfigError when the size of the group is not a power of two.
  virtual std::unique_ptr<PendingSum> start_sum(Tensor values, std::string label) = 0;

  /// The group of all ranks that pass this color, ordered by (key, rank).
  virtual std::unique_ptr<Communicator> split(int color, int key, std::string_view what) = 0;
};

/// The only rank there is; needs no launcher and no library.
class SelfCommunicator : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void barrier(std::string_view what) override;
  std::vector<double> all_gather(std::span<const double> values, std::string_view what) override;
  std::vector<std::string> all_gather_text(std::string_view text, std::string_view what) override;
  std::string broadcast_text(std::string_view text, int root, std::string_view what) override;
  std::unique_ptr<PendingSum> start_sum(Tensor values, std::string label) override;
  std::unique_ptr<Communicator> split(int color, int key, std::string_view what) override;
};

}  // namespace tadapt
