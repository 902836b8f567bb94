// The binary counter of leaf sums.
#include "runtime/comm/reduction_tree.h"

#include <algorithm>
#include <bit>

#include "kernels/core/error.h"
#include "kernels/core/launch.h"

namespace tadapt {
namespace {
constexpr std::int64_t kGrain = 16 * kReductionBlock;  // elements one thread adds at a time
}

double join_leaves(std::span<const double> values) {
  std::vector<double> partial;
  for (std::size_t i = 0; i < values.size(); ++i) {
    partial.push_back(values[i]);
    for (int carry = std::countr_one(i); carry > 0; --carry) {
      const double right = partial.back();
      partial.pop_back();
      partial.back() = partial.back() + right;
    }
  }
  double sum = partial.empty() ? 0.0 : partial.back();
  for (std::size_t i = partial.size(); i-- > 1;) sum = partial[i - 1] + sum;
  return sum;
}

void LeafJoiner::start(std::span<float> destination) {
  destination_ = destination;
  depth_ = 0;
  pushed_ = 0;
}

std::span<float> LeafJoiner::level(std::size_t index) {
  if (index == 0) return destination_;
  if (buffers_.size() < index) buffers_.resize(index);
  auto& buffer = buffers_[index - 1];
  if (buffer.size() < destination_.size()) buffer.resize(destination_.size());
  return std::span(buffer).first(destination_.size());
}

std::span<float> LeafJoiner::slot() { return level(depth_); }

void LeafJoiner::join_last_two(const Context& context) {
  const auto left = level(depth_ - 2), right = level(depth_ - 1);
  parallel_blocks(context, static_cast<std::int64_t>(left.size()), kGrain,
                  [&](std::int64_t begin, std::int64_t end, int /*thread*/) {
                    float* sum = left.data();
                    const float* addend = right.data();
                    for (std::int64_t i = begin; i < end; ++i) sum[i] = sum[i] + addend[i];
                  });
  --depth_;
}

void LeafJoiner::push(const Context& context) {
  ++depth_;
  for (int carry = std::countr_one(pushed_); carry > 0; --carry) join_last_two(context);
  ++pushed_;
}

void LeafJoiner::finish(const Context& context) {
  if (pushed_ == 0) std::fill(destination_.begin(), destination_.end(), 0.0f);
  while (depth_ > 1) join_last_two(context);
}

std::int64_t LeafJoiner::scratch_bytes() const {
  std::int64_t bytes = 0;
  for (const auto& buffer : buffers_) bytes += static_cast<std::int64_t>(buffer.size() * sizeof(float));
  return bytes;
}

std::int64_t leaf_joiner_bytes(std::int64_t elements, std::int64_t leaves) {
  if (leaves <= 1) return 0;
  const int levels = std::bit_width(static_cast<std::uint64_t>(leaves) - 1);
  return levels * elements * static_cast<std::int64_t>(sizeof(float));
}

}  // namespace tadapt
