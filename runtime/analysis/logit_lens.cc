#include "runtime/analysis/logit_lens.h"

#include <algorithm>

#include "kernels/core/memory.h"
#include "kernels/top_k.h"

namespace tadapt {
namespace {

template <class T>
void append(std::vector<T>& to, const std::vector<T>& more) {
  to.insert(to.end(), more.begin(), more.end());
}

}  // namespace

LensTable logit_lens(Context& context, const Decoder& decoder, const Tensor& directions, std::size_t budget_bytes,
                     const std::function<void()>& alive) {
  const std::int64_t rows = directions.size(0), vocabulary = decoder.config().vocabulary;
  const std::int64_t k = std::min(kLensTokens, vocabulary);
  const std::int64_t fitting = static_cast<std::int64_t>(budget_bytes / sizeof(float)) / vocabulary;
  const std::int64_t block = std::clamp<std::int64_t>(fitting, 1, std::max<std::int64_t>(rows, 1));
  const Device device = context.device();
  const Buffer logits(device, DType::kFloat32, {block, vocabulary});
  const Buffer numbers(device, DType::kFloat32, {block, k}), ids(device, DType::kInt32, {block, k});
  LensTable table{.tokens = k, .top_ids = {}, .bottom_ids = {}, .top_logits = {}, .bottom_logits = {}};
  for (std::int64_t begin = 0; begin < rows; begin += block) {
    const std::int64_t end = std::min(rows, begin + block);
    const DeviceView of_block(context, directions.rows(begin, end));
    const auto part = [&](const Buffer& buffer) { return buffer.tensor().rows(0, end - begin); };
    decoder.logits(context, of_block.tensor(), part(logits));
    const auto take = [&](Extreme extreme, std::vector<std::int32_t>& all_ids, std::vector<float>& all_numbers) {
      top_k(context, part(logits), extreme, part(numbers), part(ids));
      append(all_ids, on_host<std::int32_t>(context, part(ids)));
      append(all_numbers, on_host<float>(context, part(numbers)));
    };
    take(Extreme::kLargest, table.top_ids, table.top_logits);
    take(Extreme::kSmallest, table.bottom_ids, table.bottom_logits);
    if (alive) alive();
  }
  return table;
}

}  // namespace tadapt
