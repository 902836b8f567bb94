// Communicator: the few collectives tadapt uses, each with the same bits on any number of ranks and a bound on its
// wait.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/tensor.h"
#include "runtime/comm/element_range.h"

namespace tadapt {

/// What the ranks of a group do with float32 values of which each has as many.
enum class Collective : std::uint8_t { kSum, kScatterSum, kGather };

/// A collective that was started and runs while its caller computes. Destroying it unfinished abandons it: the group's
/// ranks no longer agree, so that is only done while an error ends the job.
class PendingExchange {
 public:
  virtual ~PendingExchange() = default;
  /// Whether the result is there. Never blocks, throws nothing; a failed collective counts as done.
  virtual bool done() const = 0;
  /// Returns when the result is there; throws CommError (rank, peer, label) or WatchdogError (the bound ran out).
  virtual void wait() = 0;
};

/// A collective that had nothing to wait for.
class FinishedExchange : public PendingExchange {
 public:
  bool done() const override { return true; }
  void wait() override {}
};

/// A group of ranks. Its ranks call the same operations in the same order, each rank from one thread at a time; what
/// was started may overlap anything. `what` names the operation in error messages ("metrics of step 12").
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
  /// Gives each rank its text of `texts` (one a rank, of any sizes, also empty) and returns what each had for this one,
  /// both in rank order.
  virtual std::vector<std::string> all_to_all_text(std::vector<std::string> texts, std::string_view what) = 0;
  /// The text of rank `root`; the other ranks' `text` is not looked at.
  virtual std::string broadcast_text(std::string_view text, int root, std::string_view what) = 0;

  /// Sends float32 values of host memory to rank `to`, and returns when their memory may change. What goes from one
  /// rank to another arrives in order, apart from everything else that the group does.
  virtual void send(const Tensor& values, int to, std::string_view what) = 0;
  /// Waits for as many values of rank `from`.
  virtual void receive(const Tensor& values, int from, std::string_view what) = 0;

  /// Starts the in-place sum over all ranks of float32 values, which must stay untouched and alive until it is done.
  /// Ranks join at distance 1, 2, 4, …: ((r0 + r1) + (r2 + r3)) + …, lower + higher, elementwise in float32, so
  /// the result is bit-identical on all ranks and does not depend on how the values are cut into several sums.
  /// ConfigError when the size of the group is not a power of two.
  std::unique_ptr<PendingExchange> start_sum(Tensor values, std::string label) {
    return start(Collective::kSum, values, std::move(label));
  }
  /// As start_sum, but every rank gets the sum of its own part only, part(values.elements()) of the values as they lie
  /// in memory, with the same bits; the rest is undefined afterwards. It sends half of a sum's bytes.
  std::unique_ptr<PendingExchange> start_scatter_sum(Tensor values, std::string label) {
    return start(Collective::kScatterSum, values, std::move(label));
  }
  /// Starts to bring the part of every rank, as start_scatter_sum leaves it, to all ranks; otherwise as start_sum.
  std::unique_ptr<PendingExchange> start_gather(Tensor values, std::string label) {
    return start(Collective::kGather, values, std::move(label));
  }
  virtual std::unique_ptr<PendingExchange> start(Collective collective, Tensor values, std::string label) = 0;

  /// This rank's part of so many values.
  ElementRange part(std::int64_t elements) const { return part_of(elements, rank(), size()); }

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
  std::vector<std::string> all_to_all_text(std::vector<std::string> texts, std::string_view what) override;
  std::string broadcast_text(std::string_view text, int root, std::string_view what) override;
  /// ShapeError: there is nobody to talk to.
  void send(const Tensor& values, int to, std::string_view what) override;
  void receive(const Tensor& values, int from, std::string_view what) override;
  std::unique_ptr<PendingExchange> start(Collective collective, Tensor values, std::string label) override;
  std::unique_ptr<Communicator> split(int color, int key, std::string_view what) override;
};

}  // namespace tadapt
