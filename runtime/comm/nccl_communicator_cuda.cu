#include <algorithm>
#include <chrono>
#include <exception>
#include <functional>
#include <future>
#include <thread>
#include <utility>

#include "kernels/core/event.h"
#include "kernels/pointwise.h"
#include "runtime/comm/backoff.h"
#include "runtime/comm/device_communicator.h"
#include "runtime/comm/nccl_communicator.h"
#include "runtime/comm/nccl_link.h"
#include "runtime/comm/pairwise_plan.h"

namespace tadapt {
namespace {

// A waiting caller is about to need its core again.
constexpr double kYieldsSeconds = 3e-4;
// More than NCCL needs to end what is under way, little beside the bound of a wait.
constexpr double kMostSecondsToEnd = 10;

/// Runs `end` on a thread of its own; whether it returned in time. What does not return is left behind.
bool returns_within(double seconds, std::function<void()> end) {
  std::packaged_task<void()> task(std::move(end));
  const auto returned = task.get_future();
  std::thread(std::move(task)).detach();
  return returned.wait_for(std::chrono::duration<double>(seconds)) == std::future_status::ready;
}

/// The link, with a bound on every wait; shared by the communicator and its sums.
class Connection {
 public:
  Connection(const std::string& id, const Communicator& group, double timeout_seconds)
      : rank_(group.rank()), ranks_(group.size()), timeout_seconds_(timeout_seconds) {
    begin("connecting the group", [&] { link_ = std::make_shared<NcclLink>(id, rank_, ranks_); });
  }
  ~Connection() {
    if (!link_) return;
    std::string trouble;
    if (std::uncaught_exceptions() > exceptions_at_start_) {
      trouble = give_up("an error ends the job");
    } else {
      try {
        begin("ending the group", [&] { link_->finalize(); });
        if (!returns_within(seconds_to_end(), [link = link_] { link->destroy(); }))
          trouble = "; ncclCommDestroy does not return";
      } catch (const std::exception& error) {
        trouble = error.what();
      }
    }
    if (!trouble.empty()) fmt::print(stderr, "tadapt: rank {} of {}, ending NCCL: {}\n", rank_, ranks_, trouble);
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  NcclLink& link() { return *link_; }
  bool failed() const { return !failure_.empty(); }

  /// Begins something and returns once NCCL has taken it.
  void begin(const std::string& what, const std::function<void()>& start) {
    bool begun = false;
    wait(what, [&] {
      if (!std::exchange(begun, true)) start();
      return link_->settled();
    });
  }
  /// Returns when the event is reached.
  void wait(const Event& event, const std::string& what) {
    wait(what, [&] {
      if (event.reached()) return true;
      link_->settled();  // hears of errors
      return false;
    });
  }
  /// The owner of a sum that is under way is gone: the ranks no longer agree.
  void abandon(const std::string& what) {
    if (!failed()) give_up(fmt::format("'{}' was abandoned", what));
  }

 private:
  double seconds_to_end() const { return std::min(timeout_seconds_, kMostSecondsToEnd); }

  void wait(const std::string& what, const std::function<bool()>& ready) {
    if (failed()) throw CommError("rank {} of {}, in '{}': NCCL was given up: {}", rank_, ranks_, what, failure_);
    std::string reason;
    try {
      for (Backoff backoff(kYieldsSeconds); backoff.waited_seconds() <= timeout_seconds_; backoff.pause())
        if (ready()) return;
    } catch (const CommError& error) {
      reason = fmt::format("rank {} of {}, in '{}': {}", rank_, ranks_, what, error.what());
    }
    if (!reason.empty()) throw CommError("{}{}", reason, give_up(reason));
    reason = fmt::format("rank {} of {} waited {:.0f} s for NCCL in '{}'", rank_, ranks_, timeout_seconds_, what);
    throw WatchdogError("{}{}", reason, give_up(reason));
  }

  /// Ends what is under way; what is to be added to the message of the error that is the reason.
  std::string give_up(const std::string& reason) {
    failure_ = reason;
    const auto link = std::exchange(link_, nullptr);
    if (!link || returns_within(seconds_to_end(), [link] { link->abort(); })) return {};
    const std::string trouble = fmt::format("; ncclCommAbort did not return within {:.0f} s either", seconds_to_end());
    // Said at once: what gives memory back on the way out may wait for the device without a bound.
    fmt::print(stderr, "tadapt: {}{}\n", reason, trouble);
    return trouble;
  }

  int rank_, ranks_;
  double timeout_seconds_;
  int exceptions_at_start_ = std::uncaught_exceptions();
  std::string failure_;  ///< why the link was given up
  std::shared_ptr<NcclLink> link_;
};

class NcclSum : public PendingExchange {
 public:
  NcclSum(std::shared_ptr<Connection> connection, Device device, std::string label)
      : connection_(std::move(connection)), event_(device), label_(std::move(label)) {}
  ~NcclSum() override {
    if (!done()) connection_->abandon(label_);
  }
  NcclSum(const NcclSum&) = delete;
  NcclSum& operator=(const NcclSum&) = delete;

  /// All of it has been asked of the line.
  void started(Context& line) { event_.record(line); }
  bool done() const override try {
    return finished_ || connection_->failed() || event_.reached();
  } catch (const DeviceError&) {
    return true;
  }
  void wait() override {
    if (!finished_) connection_->wait(event_, label_);
    finished_ = true;
  }

 private:
  std::shared_ptr<Connection> connection_;
  Event event_;
  std::string label_;
  bool finished_ = false;
};

class NcclCommunicator : public DeviceCommunicator {
 public:
  NcclCommunicator(std::unique_ptr<Communicator> wrapped, Context& on, SumOrder order, double timeout_seconds)
      : DeviceCommunicator(std::move(wrapped), on),
        order_(order),
        line_(on.beside()),
        asked_(on.device()),
        scratch_free_(on.device()) {
    const std::string id = group().broadcast_text(rank() == 0 ? NcclLink::new_id() : "", 0, "NCCL's id");
    connection_ = std::make_shared<Connection>(id, group(), timeout_seconds);
  }

 private:
  std::unique_ptr<PendingExchange> start_on_device(Collective collective, Tensor values, std::string label) override {
    auto sum = std::make_unique<NcclSum>(connection_, values.device(), label);
    asked_.record(context());
    asked_.hold(line_);
    if (order_ == SumOrder::kFast)
      start_fast(collective, values, label);
    else
      start_in_tree(collective, values, label);
    sum->started(line_);
    return sum;
  }

  void start_fast(Collective collective, const Tensor& values, const std::string& label) {
    if (collective == Collective::kSum) {
      connection_->begin(label, [&] { connection_->link().sum(line_, values); });
      return;
    }
    // NCCL wants equal parts; what the last one has more goes by itself.
    const std::int64_t equal = part_of(values.elements(), 0, size()).size();
    const Tensor parts = values.rows(0, equal * size()), rest = values.rows(equal * size(), values.elements());
    const Tensor mine = values.rows(equal * rank(), equal * (rank() + 1));
    const auto begin = [&](const Tensor& of, const std::function<void(NcclLink&)>& what) {
      if (of.elements() > 0) connection_->begin(label, [&] { what(connection_->link()); });
    };
    if (collective == Collective::kGather) {
      begin(parts, [&](NcclLink& link) { link.gather(line_, mine, parts); });
      begin(rest, [&](NcclLink& link) { link.broadcast(line_, size() - 1, rest); });
    } else {
      begin(parts, [&](NcclLink& link) { link.scatter_sum(line_, parts, mine); });
      begin(rest, [&](NcclLink& link) { link.sum(line_, rest); });
    }
  }

  std::vector<PairwiseStep> plan(Collective collective, std::int64_t elements) const {
    if (collective == Collective::kSum) return plan_pairwise_sum(rank(), size(), elements);
    const std::vector<ElementRange> parts = parts_of(elements, size());
    return collective == Collective::kGather ? plan_gather(rank(), parts) : plan_scatter_sum(rank(), parts);
  }

  void start_in_tree(Collective collective, const Tensor& values, const std::string& label) {
    for (const PairwiseStep& step : plan(collective, values.elements())) {
      if (step.out.size() + step.in.size() == 0) continue;
      const Tensor out = values.rows(step.out.begin, step.out.end), in = values.rows(step.in.begin, step.in.end);
      const bool adds = step.arrival != PairwiseStep::Arrival::kCopy && in.elements() > 0;
      const Tensor arriving = adds ? scratch(in.elements(), label) : in;
      connection_->begin(label, [&] { connection_->link().exchange(line_, step.peer, out, arriving); });
      // On either side: the bits of a + b are those of b + a.
      if (adds) add_to(line_, arriving, in);
    }
    scratch_free_.record(line_);
  }

  Tensor scratch(std::int64_t elements, const std::string& label) {
    if (scratch_.bytes() < static_cast<std::size_t>(elements) * sizeof(float)) {
      // Giving memory back waits, without a bound, for all that may use it.
      connection_->wait(scratch_free_, label);
      scratch_ = Buffer(line_.device(), DType::kFloat32, {elements});
    }
    return scratch_.tensor().rows(0, elements);
  }

  SumOrder order_;
  Context line_;
  Event asked_, scratch_free_;
  Buffer scratch_;
  std::shared_ptr<Connection> connection_;
};

}  // namespace

std::unique_ptr<Communicator> make_nccl_communicator(std::unique_ptr<Communicator> group, Context& context,
                                                     SumOrder order, double timeout_seconds) {
  return std::make_unique<NcclCommunicator>(std::move(group), context, order, timeout_seconds);
}

std::string nccl_version() { return "NCCL " + NcclLink::version(); }

}  // namespace tadapt
