#include <algorithm>

#include "kernels/core/launch.h"
#include "kernels/top_k.h"

namespace tadapt::cpu {

void top_k(Context& context, const Tensor& x, Extreme extreme, const Tensor& numbers, const Tensor& ids) {
  const std::int64_t n = x.size(1), k = numbers.size(1);
  const RankOrder before{extreme};
  parallel_for(context, x.size(0), [&](std::int64_t row, int thread) {
    const float* values = x.span<float>().data() + row * n;
    // A heap whose front is the last of those kept.
    const std::span<Ranked> kept = context.scratch_of<Ranked>(thread, static_cast<std::size_t>(k));
    for (std::int32_t id = 0; id < k; ++id) kept[static_cast<std::size_t>(id)] = {values[id], id};
    std::ranges::make_heap(kept, before);
    for (auto id = static_cast<std::int32_t>(k); id < n; ++id) {
      if (!before({values[id], id}, kept.front())) continue;
      std::ranges::pop_heap(kept, before);
      kept.back() = {values[id], id};
      std::ranges::push_heap(kept, before);
    }
    std::ranges::sort_heap(kept, before);
    for (std::int64_t i = 0; i < k; ++i) {
      numbers.span<float>()[static_cast<std::size_t>(row * k + i)] = kept[static_cast<std::size_t>(i)].number;
      ids.span<std::int32_t>()[static_cast<std::size_t>(row * k + i)] = kept[static_cast<std::size_t>(i)].id;
    }
  });
}

}  // namespace tadapt::cpu
