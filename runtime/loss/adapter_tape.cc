#include "runtime/loss/adapter_tape.h"

#include <algorithm>

#include "kernels/core/memory.h"
#include "kernels/pointwise.h"
#include "runtime/adapter/grown.h"

namespace tadapt {

AdapterTape::AdapterTape(Device device, std::vector<TapedAdapter> adapters, const Limits& limits)
    : adapters_(std::move(adapters)), limits_(limits), other_weighted_(device, DType::kFloat64, {1}) {
  std::int64_t widest = 1, longest = 0;
  for (std::size_t index = 0; index < adapters_.size(); ++index) {
    places_[adapters_[index].layer] = index;
    widest = std::max(widest, adapters_[index].adapter->shape().model_width);
    longest = std::max(longest, adapters_[index].group->exchange_elements);
  }
  output_ = Buffer(device, DType::kFloat32, {limits.tokens * widest});
  if (limits.branches > 1) partial_ = Buffer(device, DType::kFloat32, {longest});
  const auto make_record = [&](const TapedAdapter& one) {
    const std::int64_t features = one.adapter->shape().features;
    records_.emplace_back(device, limits.tokens, features,
                          most_pairs(limits.tokens, features, one.adapter->compute().sparse_below));
  };
  if (limits.memory == FeatureMemory::kKept) {
    for (const TapedAdapter& one : adapters_)
      for (int branch = 0; branch < limits.branches; ++branch) make_record(one);
  } else if (!adapters_.empty()) {
    make_record(*std::ranges::max_element(adapters_, {},
                                          [](const TapedAdapter& one) { return one.adapter->shape().features; }));
  }
}

std::int64_t AdapterTape::bytes(const AdapterShape& shape, double sparse_below, std::int64_t adapters,
                                const Limits& limits) {
  const std::int64_t records = limits.memory == FeatureMemory::kKept ? adapters * limits.branches : 1;
  const std::int64_t record =
      FeatureRecord::bytes(limits.tokens, shape.features, most_pairs(limits.tokens, shape.features, sparse_below));
  constexpr std::int64_t kNumber = 4;
  const std::int64_t scratch = kNumber * limits.tokens * (shape.features + 3 * shape.model_width);
  return records * record + scratch;
}

void AdapterTape::begin(Leaf leaf) {
  leaf_ = std::move(leaf);
  begun_.assign(adapters_.size(), false);
}

FeatureRecord& AdapterTape::record(std::size_t index, int branch) {
  if (limits_.memory == FeatureMemory::kRecomputed) return records_.front();
  return records_.at(index * static_cast<std::size_t>(limits_.branches) +
                     static_cast<std::size_t>(branch - limits_.first_branch));
}

/// Fills output_ and the record.
void AdapterTape::run(Context& context, std::size_t index, int branch, const Tensor& mlp_in) {
  const TapedAdapter& one = adapters_[index];
  const Tensor output = grown(context, output_, DType::kFloat32, mlp_in.size(0), mlp_in.size(1));
  one.adapter->forward(context, mlp_in, one.masters, record(index, branch), output);
}

void AdapterTape::record_output(Context& context, BranchPlace place, const Tensor& mlp_in, const Tensor& mlp_out) {
  run(context, places_.at(place.layer), place.branch, mlp_in);
  add_to(context, grown(context, output_, DType::kFloat32, mlp_in.size(0), mlp_in.size(1)), mlp_out);
}

void AdapterTape::backward(Context& context, BranchPlace place, const Tensor& mlp_in, const Tensor& cotangent,
                           const Tensor& gradient) {
  const std::size_t index = places_.at(place.layer);
  const TapedAdapter& one = adapters_[index];
  if (limits_.memory == FeatureMemory::kRecomputed) run(context, index, place.branch, mlp_in);
  const bool main = place.branch == 0, first = !begun_[index];
  const Tensor slot = leaf_.slot(index);
  const Tensor room = first ? slot : partial_.tensor().rows(0, one.group->exchange_elements);
  const auto at = static_cast<std::int64_t>(index);
  clear_padding(context, *one.group, room);
  one.adapter->backward(
      context, {.x = mlp_in,
                .record = record(index, place.branch),
                .scratch = scratch_,
                .cotangent = cotangent,
                .sparsity = main ? leaf_.sparsity : 0.0f,
                .masters = one.masters,
                .gradients = parameter_views(*one.group, room),
                .statistics = statistic_views(*one.group, room),
                .weighted_activations = main ? leaf_.weighted_activations.rows(at, at + 1) : other_weighted_.tensor(),
                .input_gradient = gradient});
  if (!main) clear(context, room.rows(one.group->trainable_elements, one.group->exchange_elements));
  if (!first) add_to(context, room, slot);
  begun_[index] = true;
  if (place.branch == limits_.first_branch) leaf_.filled(index);
}

void AdapterTape::finish(Context& context) {
  for (std::size_t index = adapters_.size(); index-- > 0;) {
    if (begun_[index]) continue;
    clear(context, leaf_.slot(index));
    leaf_.filled(index);
  }
}

}  // namespace tadapt
