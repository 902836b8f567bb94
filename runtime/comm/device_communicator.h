// DeviceCommunicator: a group that also sums, scatters and gathers values which lie on a device; everything else its
// ranks do as before.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kernels/core/context.h"
#include "runtime/comm/communicator.h"

namespace tadapt {

/// start_sum and its like take float32 values of the context's device as well: they run after everything asked of the
/// context so far and beside what is asked of it later; what is asked after wait() sees the result. Those of host
/// values, and all other calls, are those of the group it wraps. What is done with device values belongs to this group:
/// what split() gives is a split of the wrapped group and knows host values only.
class DeviceCommunicator : public Communicator {
 public:
  /// The context must outlive it, and stay where it is.
  DeviceCommunicator(std::unique_ptr<Communicator> group, Context& context)
      : group_(std::move(group)), context_(context) {}

  int rank() const override { return group_->rank(); }
  int size() const override { return group_->size(); }
  void barrier(std::string_view what) override { group_->barrier(what); }
  std::vector<double> all_gather(std::span<const double> values, std::string_view what) override {
    return group_->all_gather(values, what);
  }
  std::vector<std::string> all_gather_text(std::string_view text, std::string_view what) override {
    return group_->all_gather_text(text, what);
  }
  std::vector<std::string> all_to_all_text(std::vector<std::string> texts, std::string_view what) override {
    return group_->all_to_all_text(std::move(texts), what);
  }
  std::string broadcast_text(std::string_view text, int root, std::string_view what) override {
    return group_->broadcast_text(text, root, what);
  }
  void send(const Tensor& values, int to, std::string_view what) override { group_->send(values, to, what); }
  void receive(const Tensor& values, int from, std::string_view what) override { group_->receive(values, from, what); }
  std::unique_ptr<PendingExchange> start(Collective collective, Tensor values, std::string label) final;
  std::unique_ptr<Communicator> split(int color, int key, std::string_view what) override {
    return group_->split(color, key, what);
  }

 protected:
  /// As start, of [n] values on the context's device, n at least 1; the group has at least two ranks.
  virtual std::unique_ptr<PendingExchange> start_on_device(Collective collective, Tensor values, std::string label) = 0;
  Communicator& group() { return *group_; }
  Context& context() { return context_; }

 private:
  std::unique_ptr<Communicator> group_;
  Context& context_;
};

}  // namespace tadapt
