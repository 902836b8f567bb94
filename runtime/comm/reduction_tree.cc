// The binary counter of leaf sums.
#include "runtime/comm/reduction_tree.h"

#include <algorithm>
#include <bit>

#include "kernels/core/error.h"
#include "kernels/optim.h"
#include "kernels/pointwise.h"

namespace tadapt {

static_assert(kReductionBlock == kSumBlock);

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

void LeafJoiner::start(Sum sum) {
  require_shape(sum.leaves >= 1, "a sum of {} leaves", sum.leaves);
  sum_ = sum;
  depth_ = 0;
  pushed_ = 0;
}

Tensor LeafJoiner::level(std::size_t index) {
  if (index == 0) return sum_.destination;
  if (buffers_.size() < index) buffers_.resize(index);
  Buffer& buffer = buffers_[index - 1];
  const std::int64_t elements = sum_.destination.elements();
  if (buffer.tensor().elements() < elements || buffer.device() != sum_.destination.device()) {
    buffer = Buffer();  // released first, so that both are never held
    buffer = Buffer(sum_.destination.device(), DType::kFloat32, {elements});
  }
  return buffer.tensor().rows(0, elements);
}

std::int64_t LeafJoiner::squared_elements() const {
  if (sum_.square_sums.empty()) return 0;
  return std::min(sum_.destination.elements(), sum_.square_sums.elements() * kReductionBlock);
}

Tensor LeafJoiner::slot() { return level(depth_); }

void LeafJoiner::join_last_two(Context& context) {
  const Tensor left = level(depth_ - 2), right = level(depth_ - 1);
  --depth_;
  const bool is_result = depth_ == 1 && pushed_ == sum_.leaves;
  const std::int64_t n = left.elements();
  const std::int64_t squared = is_result ? squared_elements() : 0;
  if (squared > 0) add_with_square_sums(context, right.rows(0, squared), left.rows(0, squared), sum_.square_sums);
  add_to(context, right.rows(squared, n), left.rows(squared, n));
}

void LeafJoiner::push(Context& context) {
  ++depth_;
  const int carries = std::countr_one(static_cast<std::uint64_t>(pushed_++));
  for (int carry = carries; carry > 0; --carry) join_last_two(context);
  if (pushed_ < sum_.leaves) return;
  while (depth_ > 1) join_last_two(context);
  if (sum_.leaves == 1 && squared_elements() > 0)
    block_square_sums(context, sum_.destination.rows(0, squared_elements()), sum_.square_sums);
}

std::int64_t LeafJoiner::scratch_bytes() const {
  std::int64_t bytes = 0;
  for (const Buffer& buffer : buffers_) bytes += static_cast<std::int64_t>(buffer.bytes());
  return bytes;
}

std::int64_t leaf_joiner_bytes(std::int64_t elements, std::int64_t leaves) {
  if (leaves <= 1) return 0;
  const int levels = std::bit_width(static_cast<std::uint64_t>(leaves) - 1);
  return levels * elements * static_cast<std::int64_t>(sizeof(float));
}

}  // namespace tadapt
