#include "runtime/train/state_shards.h"

#include <algorithm>

#include "kernels/core/memory.h"
#include "runtime/comm/pairwise_plan.h"

namespace tadapt {

static_assert(kParameterBlock == kReductionBlock);

std::vector<ParameterPart> state_parts(ShardState shard, const ParameterStore& store, const Communicator& group) {
  std::vector<ParameterPart> parts;
  for (std::size_t i = 0; shard == ShardState::kOn && i < store.group_count(); ++i) {
    const ElementRange part = group.part(store.group(i).trainable_elements);
    parts.push_back({part.begin, part.end});
  }
  return parts;
}

void join_square_sums(Context& context, Communicator& group, const AdamWState& optimiser, std::size_t index) {
  const Tensor sums = optimiser.square_sums(index);
  std::vector<ElementRange> parts = parts_of(sums.elements() * kParameterBlock, group.size());
  for (ElementRange& part : parts) part = {part.begin / kParameterBlock, part.end / kParameterBlock};
  // All ranks send as many as the last one, whose part is the longest; behind a shorter part follow sums of others.
  const std::int64_t most = parts.back().size();
  const std::int64_t begin = parts[static_cast<std::size_t>(group.rank())].begin;
  const std::vector<double> all =
      group.all_gather(on_host<double>(context, sums.rows(begin, begin + most)), "square sums of a gradient");
  std::vector<double> joined(static_cast<std::size_t>(sums.elements()));
  for (std::size_t rank = 0; rank < parts.size(); ++rank)
    std::copy_n(all.begin() + static_cast<std::ptrdiff_t>(rank) * most, parts[rank].size(),
                joined.begin() + parts[rank].begin);
  copy(context, Tensor::of(std::span(joined), sums.shape()), sums);
  synchronize(context);
}

WholeMoments::WholeMoments(Context& context, Communicator& group, const AdamWState& optimiser, std::size_t index,
                           Hold hold) {
  const auto whole = [&](const Tensor& moment) -> Moment {
    if (!optimiser.sharded() && moment.device() == Device::kCpu && hold == Hold::kInPlace) return {{}, moment};
    const auto [begin, end] = optimiser.part(index);
    Buffer memory(Device::kCpu, DType::kFloat32, {optimiser.square_sums(index).elements() * kParameterBlock});
    const Tensor tensor = memory.tensor();
    if (begin < end) copy(context, moment, tensor.rows(begin, end));
    synchronize(context);
    if (optimiser.sharded()) group.start_gather(tensor, "moments for a checkpoint")->wait();
    return {std::move(memory), tensor};
  };
  first_ = whole(optimiser.first_moment(index));
  second_ = whole(optimiser.second_moment(index));
}

}  // namespace tadapt
