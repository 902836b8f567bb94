#include "runtime/train/gradient_exchange.h"

#include "runtime/train/state_shards.h"

namespace tadapt {

void GradientExchange::start(std::size_t index) {
  const std::string& name = state_.trainees[index].name;
  const ParameterGroup& layout = state_.store.group(index);
  const Tensor gradient = state_.store.gradient(index);
  const std::string label = fmt::format("gradient of {}", name);
  Pending& pending = pending_[index];
  if (!state_.optimiser.sharded()) {
    pending.gradient = group_.start_sum(gradient, label);
    return;
  }
  pending.gradient = group_.start_scatter_sum(gradient.rows(0, layout.trainable_elements), label);
  pending.statistics = group_.start_sum(gradient.rows(layout.trainable_elements, layout.exchange_elements),
                                        fmt::format("statistics of {}", name));
}

void GradientExchange::join(std::size_t index) {
  Pending& pending = pending_[index];
  stall_.during([&] {
    pending.gradient->wait();
    if (pending.statistics) pending.statistics->wait();
  });
  if (exchanges()) state_.optimiser.measure(context_, state_.store, index);
  if (state_.optimiser.sharded()) stall_.during([&] { join_square_sums(context_, group_, state_.optimiser, index); });
}

void GradientExchange::start_masters(std::size_t index) {
  if (!state_.optimiser.sharded()) return;
  pending_[index].masters =
      group_.start_gather(state_.store.master(index), fmt::format("weights of {}", state_.trainees[index].name));
}

void GradientExchange::join_masters(std::size_t index) {
  if (pending_[index].masters) stall_.during([&] { pending_[index].masters->wait(); });
}

}  // namespace tadapt
