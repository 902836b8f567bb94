#include "runtime/model/token_tensors.h"

#include "kernels/core/memory.h"
#include "runtime/adapter/grown.h"

namespace tadapt {
namespace {

/// A view for ops, which read these numbers only.
Tensor view(const std::vector<std::int32_t>& numbers) {
  return Tensor(const_cast<std::int32_t*>(numbers.data()), DType::kInt32, {static_cast<std::int64_t>(numbers.size())});
}

}  // namespace

TokenTensors TokenMemory::place(Context& context, const TokenBatch& batch) {
  TokenTensors tensors{batch, view(batch.ids), view(batch.positions), view(batch.offsets)};
  if (context.device() == Device::kCpu) return tensors;
  const std::int64_t tokens = batch.tokens();
  const Tensor memory = grown(context, memory_, DType::kInt32, 1, 2 * tokens).reshaped({2 * tokens});
  const auto move = [&](Tensor& tensor, std::int64_t begin) {
    const Tensor there = memory.rows(begin, begin + tokens);
    copy(context, tensor, there);
    tensor = there;
  };
  move(tensors.ids, 0);
  move(tensors.positions, tokens);
  synchronize(context);
  return tensors;
}

}  // namespace tadapt
