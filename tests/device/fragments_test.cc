// Fragments against matrices that lie in memory: the layouts are written out here from PTX's documentation.
#include "kernels/core/fragments.cuh"

#include <gtest/gtest.h>

#include <functional>
#include <stdexcept>
#include <vector>

#include "kernels/core/memory.h"

namespace tadapt::cuda {
namespace {

/// Numbers whose products and sums are exact in fp32, and which differ from place to place.
float dyadic(int row, int column) { return static_cast<float>((row * 37 + column * 11) % 61 - 30) / 8.0f; }

/// Calls `body` once for each lane of a warp.
void run_warp(const std::function<void()>& body) { device_on_host::launch(1, kWarp, 16384, nullptr, body); }

int lane() { return static_cast<int>(threadIdx.x); }

TEST(Fragments, AProductOfDyadicMatricesIsExact) {
  std::vector<float> found(16 * 8, -1.0f);
  run_warp([&] {
    LeftFragment left;
    RightFragment right;
    SumFragment sum;
    const int group = lane() / 4, within = lane() % 4;
    for (int i = 0; i < 8; ++i) {  // elements a0 to a7, b0 to b3, c0 to c3 of the documentation
      const int row = i % 4 < 2 ? group : group + 8, column = within * 2 + (i & 1) + (i < 4 ? 0 : 8);
      const float number = dyadic(row, column);
      left.pairs[i / 2] = i % 2 == 0 ? pair_of(number, 0) : left.pairs[i / 2] | pair_of(0, number);
    }
    for (int i = 0; i < 4; ++i) {
      const float number = dyadic(within * 2 + (i & 1) + (i < 2 ? 0 : 8) + 100, group);
      right.pairs[i / 2] = i % 2 == 0 ? pair_of(number, 0) : right.pairs[i / 2] | pair_of(0, number);
    }
    for (int i = 0; i < 4; ++i) sum.values[i] = 0.5f;
    multiply_add(left, right, sum);
    for (int i = 0; i < 4; ++i)
      found[static_cast<std::size_t>((i < 2 ? group : group + 8) * 8 + within * 2 + (i & 1))] = sum.values[i];
  });
  for (int row = 0; row < 16; ++row) {
    for (int column = 0; column < 8; ++column) {
      double truth = 0.5;
      for (int k = 0; k < 16; ++k) truth += static_cast<double>(dyadic(row, k)) * dyadic(k + 100, column);
      EXPECT_EQ(found[static_cast<std::size_t>(row * 8 + column)], truth) << row << ", " << column;
    }
  }
}

TEST(Fragments, MatricesLoadAsTheyStandAndTransposed) {
  std::vector<int> wrong(kWarp);
  run_warp([&] {
    bfloat16* room = dynamic_shared<bfloat16>();  // row l at 8·((5·l) % 32): rows need not be neighbours
    bfloat16* row = room + 8 * (5 * lane() % 32);
    for (int column = 0; column < 8; ++column) row[column] = bfloat16(dyadic(lane(), column));
    __syncwarp();
    const FourMatrices plain = load_matrices(row), turned = load_transposed(row);
    for (int i = 0; i < 4; ++i) {
      const int group = lane() / 4, first = lane() % 4 * 2;
      if (plain.pairs[i] != pair_of(dyadic(8 * i + group, first), dyadic(8 * i + group, first + 1)))
        ++wrong[threadIdx.x];
      if (turned.pairs[i] != pair_of(dyadic(8 * i + first, group), dyadic(8 * i + first + 1, group)))
        ++wrong[threadIdx.x];
    }
  });
  EXPECT_EQ(wrong, std::vector<int>(kWarp));
}

TEST(Fragments, AProductThatALaneLeavesOutIsAnError) {
  EXPECT_THROW(run_warp([] {
                 SumFragment sum;
                 if (lane() != 7) multiply_add({}, {}, sum);
               }),
               std::logic_error);
}

TEST(Fragments, ACopyIsThereOnceItIsFinished) {
  alignas(16) std::uint32_t from[4] = {1, 2, 3, 4};
  std::vector<std::uint32_t> before, after;
  run_warp([&] {
    auto* to = dynamic_shared<std::uint32_t>() + 4 * lane();
    begin_copy(to, from, lane() == 0 ? 8 : 0);
    if (lane() == 0) before.assign(to, to + 4);
    finish_copies();
    if (lane() == 0) after.assign(to, to + 4);
  });
  EXPECT_EQ(before, std::vector<std::uint32_t>(4, ~0u)) << "spoilt until then";
  EXPECT_EQ(after, (std::vector<std::uint32_t>{1, 2, 0, 0}));
}

}  // namespace
}  // namespace tadapt::cuda
