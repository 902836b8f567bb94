// stream_copy: memcpy at every alignment and length, and nothing beside.
#include "data/stream_copy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace tadapt {
namespace {

TEST(StreamCopyTest, CopiesEveryLengthBetweenAnyAlignments) {
  constexpr std::size_t kGuard = 80, kMost = 300;
  std::vector<std::byte> source(kMost + kGuard);
  for (std::size_t i = 0; i < source.size(); ++i) source[i] = static_cast<std::byte>(i * 37 + 1);
  for (std::size_t bytes = 0; bytes <= kMost; bytes += bytes < 140 ? 1 : 17) {
    for (std::size_t to = 0; to < 64; to += 3) {
      for (const std::size_t from : {0u, 1u, 16u}) {
        std::vector<std::byte> target(kMost + 2 * kGuard, std::byte{0});
        std::vector<std::byte> expected = target;
        std::copy_n(source.begin() + static_cast<std::ptrdiff_t>(from), bytes,
                    expected.begin() + static_cast<std::ptrdiff_t>(to));
        stream_copy(target.data() + to, source.data() + from, bytes);
        stream_copies_done();
        ASSERT_EQ(target, expected) << bytes << " bytes from " << from << " to " << to;
      }
    }
  }
}

}  // namespace
}  // namespace tadapt
