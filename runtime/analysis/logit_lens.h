// The logit lens: which tokens a direction of the residual stream speaks for, and which against.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "runtime/model/decoder.h"

namespace tadapt {

inline constexpr std::int64_t kLensTokens = 10;

/// The most promoted and the most suppressed tokens of each direction, k of either: [F, k] ids and logits.
struct LensTable {
  std::int64_t tokens = 0;  ///< k
  std::vector<std::int32_t> top_ids, bottom_ids;
  std::vector<float> top_logits, bottom_logits;
};

/// Of head · direction, for directions [F, D] float32 on the host: no final norm, no centring, computed as the decoder
/// computes its logits. Equal logits are in order of their ids. Made in blocks of rows that fit `budget_bytes`, of
/// which only k numbers a row leave a device; `alive` is called after each.
LensTable logit_lens(Context& context, const Decoder& decoder, const Tensor& directions, std::size_t budget_bytes,
                     const std::function<void()>& alive = {});

}  // namespace tadapt
