// TokenBatch: sequences of tokens packed one after another, without padding.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/core/tensor.h"

namespace tadapt {

/// T tokens of B sequences; sequence b owns rows [offsets[b], offsets[b+1]); its positions count from 0, unless tokens
/// of it were run before.
struct TokenBatch {
  std::vector<std::int32_t> ids;         ///< [T]
  std::vector<std::int32_t> positions;   ///< [T]
  std::vector<std::int32_t> offsets{0};  ///< [B + 1]

  std::int64_t tokens() const { return static_cast<std::int64_t>(ids.size()); }
  int sequences() const { return static_cast<int>(offsets.size()) - 1; }
  /// Appends one sequence (an empty one is allowed), or what follows its first `before` tokens. ShapeError beyond
  /// 2^31 - 1 tokens.
  void append(std::span<const std::int32_t> sequence, std::int32_t before = 0);
  void clear();
};

}  // namespace tadapt
