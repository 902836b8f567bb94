// Device to host, exchange, host to device.
#include "runtime/comm/staged_communicator.h"

#include <algorithm>
#include <deque>
#include <utility>

#include "kernels/core/event.h"
#include "kernels/core/memory.h"

namespace tadapt {
namespace {
/// Where a sum's values stay while they are on the host.
struct Slot {
  Buffer buffer;
  Event copied;
};
}  // namespace

/// What the sums of one group have in common.
class StagedCommunicator::Staging {
 public:
  Staging(std::unique_ptr<Communicator> sums, Context& context)
      : sums_(std::move(sums)),
        context_(context),
        line_(context.beside()),
        asked_(context.device()),
        returned_(context.device()) {}

  /// The smallest free slot that has room, or a new one.
  Slot take_slot(std::int64_t elements);
  /// Begins to copy; the sum's turn to be exchanged comes when those before it have had theirs.
  void enqueue(StagedSum& sum);
  /// Begins the exchange of those that are on the host. Ranks see copies end at different times, but `sums_` carries
  /// nothing else, so that only the order of sums counts, and that is the same everywhere.
  void advance();
  /// As advance, up to this sum, waiting for its copy.
  void exchange(const StagedSum& sum);
  /// Brings the sum back; its slot is free again.
  void finish(StagedSum& sum);
  void forget(const StagedSum& sum) { std::erase(copying_, &sum); }
  ElementRange part(std::int64_t elements) const { return sums_->part(elements); }

 private:
  void copy_range(const Tensor& from, const Tensor& to, ElementRange range) {
    if (range.size() > 0) copy(line_, from.rows(range.begin, range.end), to.rows(range.begin, range.end));
  }
  void exchange_first();

  std::unique_ptr<Communicator> sums_;
  Context& context_;
  Context line_;
  Event asked_, returned_;
  std::vector<Slot> free_;
  std::deque<StagedSum*> copying_;
};

class StagedCommunicator::StagedSum : public PendingExchange {
 public:
  StagedSum(std::shared_ptr<Staging> staging, Collective collective, Tensor values, std::string label)
      : staging_(std::move(staging)),
        collective_(collective),
        values_(values),
        label_(std::move(label)),
        slot_(staging_->take_slot(values.elements())) {
    staging_->enqueue(*this);
  }
  ~StagedSum() override {
    staging_->forget(*this);
    if (finished_) return;
    exchange_.reset();
    try {
      slot_.copied.wait();  // the device must not write memory that is given back
    } catch (const DeviceError&) {
      return;  // it writes nothing any more; who waits for the device hears of it
    }
  }
  StagedSum(const StagedSum&) = delete;
  StagedSum& operator=(const StagedSum&) = delete;

  bool done() const override try {
    staging_->advance();
    return finished_ || (exchange_ && exchange_->done());
  } catch (const std::exception&) {
    return true;
  }
  void wait() override {
    if (finished_) return;
    staging_->exchange(*this);
    exchange_->wait();
    staging_->finish(*this);
    finished_ = true;
  }

 private:
  friend class Staging;
  /// This rank's part if this is a `partial` one, else everything.
  ElementRange range(Collective partial) const {
    return collective_ == partial ? staging_->part(values_.elements()) : ElementRange{0, values_.elements()};
  }
  Tensor on_host() const { return Tensor(slot_.buffer.data(), DType::kFloat32, values_.shape()); }

  std::shared_ptr<Staging> staging_;
  Collective collective_;
  Tensor values_;
  std::string label_;
  Slot slot_;
  std::unique_ptr<PendingExchange> exchange_;
  bool finished_ = false;
};

Slot StagedCommunicator::Staging::take_slot(std::int64_t elements) {
  const auto bytes = static_cast<std::size_t>(elements) * sizeof(float);
  auto best = free_.end();
  for (auto slot = free_.begin(); slot != free_.end(); ++slot) {
    if (slot->buffer.bytes() < bytes) continue;
    if (best == free_.end() || slot->buffer.bytes() < best->buffer.bytes()) best = slot;
  }
  if (best == free_.end())
    return {Buffer::pinned(context_.device(), DType::kFloat32, {elements}), Event(context_.device())};
  Slot taken = std::move(*best);
  free_.erase(best);
  return taken;
}

void StagedCommunicator::Staging::enqueue(StagedSum& sum) {
  advance();
  asked_.record(context_);
  asked_.hold(line_);
  copy_range(sum.values_, sum.on_host(), sum.range(Collective::kGather));
  sum.slot_.copied.record(line_);
  copying_.push_back(&sum);
}

void StagedCommunicator::Staging::exchange_first() {
  StagedSum& sum = *copying_.front();
  sum.exchange_ = sums_->start(sum.collective_, sum.on_host(), sum.label_);
  copying_.pop_front();
}

void StagedCommunicator::Staging::advance() {
  while (!copying_.empty() && copying_.front()->slot_.copied.reached()) exchange_first();
}

void StagedCommunicator::Staging::exchange(const StagedSum& sum) {
  while (!sum.exchange_) {
    copying_.front()->slot_.copied.wait();
    exchange_first();
  }
}

void StagedCommunicator::Staging::finish(StagedSum& sum) {
  copy_range(sum.on_host(), sum.values_, sum.range(Collective::kScatterSum));
  returned_.record(line_);
  returned_.hold(context_);
  // Whoever has the slot next writes it on the same line of work, so after this copy.
  free_.push_back(std::move(sum.slot_));
}

StagedCommunicator::StagedCommunicator(std::unique_ptr<Communicator> group, Context& context)
    : DeviceCommunicator(std::move(group), context) {
  auto sums = this->group().split(0, this->group().rank(), "staged sums");
  staging_ = std::make_shared<Staging>(std::move(sums), context);
}

std::unique_ptr<PendingExchange> StagedCommunicator::start_on_device(Collective collective, Tensor values,
                                                                     std::string label) {
  return std::make_unique<StagedSum>(staging_, collective, values, std::move(label));
}

}  // namespace tadapt
