// The documented reduction tree, written once more from its description and not from the code.
#pragma once

#include <cstddef>
#include <vector>

namespace tadapt::testing {

/// Sum of leaves [begin, end), a power of two of them, as a balanced tree of left + right in float32.
inline float balanced_sum(const std::vector<std::vector<float>>& leaves, std::size_t element, std::size_t begin,
                          std::size_t end) {
  if (end - begin == 1) return leaves[begin][element];
  const std::size_t middle = begin + (end - begin) / 2;
  const float left = balanced_sum(leaves, element, begin, middle);
  const float right = balanced_sum(leaves, element, middle, end);
  return left + right;
}

}  // namespace tadapt::testing
