// Tensor, Shape, Buffer, Context, parallel_for, errors.
#include <atomic>
#include <numeric>

#include "kernels/core/check.h"
#include "kernels/core/launch.h"
#include "kernels/core/vectorise.h"
#include "tests/kernels/testing.h"
#include "tests/support/sanitizers.h"

namespace tadapt {
namespace {

TEST(Shape, CountsElementsAndPrints) {
  EXPECT_EQ(Shape({2, 3, 4}).elements(), 24);
  EXPECT_EQ(Shape({0, 3}).elements(), 0);
  EXPECT_EQ(Shape().elements(), 1);
  EXPECT_EQ(Shape({16, 128}).to_string(), "[16, 128]");
  EXPECT_EQ(Shape().to_string(), "[]");
  EXPECT_EQ(fmt::format("{}", Shape{7}), "[7]");
  EXPECT_FALSE(Shape({2, 3}) == Shape({3, 2}));
}

TEST(Shape, RefusesNegativeSizesAndTooManyDimensions) {
  EXPECT_THROW(Shape({-1}), ShapeError);
  EXPECT_THROW(Shape({1, 1, 1, 1, 1}), ShapeError);
}

TEST(Tensor, RowsAreViewsOfTheSameMemory) {
  std::vector<float> numbers(24);
  std::iota(numbers.begin(), numbers.end(), 0.0f);
  for (const Shape& shape : {Shape{24}, Shape{6, 4}, Shape{6, 2, 2}, Shape{6, 1, 2, 2}}) {
    const Tensor tensor = Tensor::of(std::span<float>(numbers), shape);
    const std::int64_t per_row = 24 / shape[0];
    const Tensor rows = tensor.rows(2, 5);
    EXPECT_EQ(rows.size(0), 3);
    EXPECT_EQ(rows.rank(), shape.rank());
    EXPECT_EQ(rows.span<float>()[0], static_cast<float>(2 * per_row));
    EXPECT_EQ(rows.elements(), 3 * per_row);
    EXPECT_EQ(tensor.rows(6, 6).elements(), 0);
    EXPECT_THROW((void)tensor.rows(3, 2), ShapeError);
    EXPECT_THROW((void)tensor.rows(0, shape[0] + 1), ShapeError);
    EXPECT_THROW((void)tensor.rows(-1, 1), ShapeError);
  }
}

TEST(Tensor, ChecksDtypeCountAndShape) {
  std::vector<float> numbers(6);
  const Tensor tensor = Tensor::of(std::span<float>(numbers), {2, 3});
  EXPECT_THROW((void)tensor.span<double>(), ShapeError);
  EXPECT_THROW((void)Tensor::of(std::span<float>(numbers), {7}), ShapeError);
  EXPECT_THROW((void)tensor.reshaped({4}), ShapeError);
  EXPECT_EQ(tensor.reshaped({3, 2}).size(0), 3);
  EXPECT_EQ(tensor.bytes(), 24u);
  EXPECT_THROW((void)Tensor(numbers.data(), DType::kFloat32, {6}, Device::kCuda).span<float>(), ShapeError);
  EXPECT_TRUE(Tensor().empty());
}

TEST(Buffer, IsZeroAlignedAndShaped) {
  const Buffer buffer(Device::kCpu, DType::kBFloat16, {3, 5});
  EXPECT_EQ(buffer.bytes(), 30u);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer.data()) % 64, 0u);
  for (const bfloat16 number : buffer.span<bfloat16>()) EXPECT_EQ(number.bits, 0);
  EXPECT_EQ(buffer.tensor().shape(), (Shape{3, 5}));
  EXPECT_NE(Buffer(Device::kCpu, DType::kFloat32, {0, 4}).data(), nullptr);
  EXPECT_EQ(Buffer().data(), nullptr);
}

TEST(Buffer, OfADeviceThatThisBuildLacksIsRefused) {
#if defined(TADAPT_CUDA)
  GTEST_SKIP() << "this build has them all";
#endif
  EXPECT_THROW(Buffer(Device::kCuda, 16), DeviceError);
}

TEST(Buffer, SaysWhatItCouldNotGet) {
#if !defined(TADAPT_ADDRESS_SANITIZER)  // which ends the process instead of refusing
  EXPECT_THROW(Buffer(Device::kCpu, std::size_t{1} << 60), DeviceError);
#endif
}

TEST(Context, ScratchGrowsAndStays) {
  Context context = Context::cpu(2);
  void* first = context.scratch(1, 1000);
  EXPECT_EQ(context.scratch(1, 10), first);
  const std::span<double> numbers = context.scratch_of<double>(0, 77);
  EXPECT_EQ(numbers.size(), 77u);
  EXPECT_THROW((void)context.scratch(2, 1), std::out_of_range);
  EXPECT_EQ(Context::cpu(0).threads(), 1);
}

TEST(Context, StateIsOnePerTypeAndContext) {
  Context one = Context::cpu(1), two = Context::cpu(1);
  one.state<std::vector<int>>().push_back(3);
  EXPECT_EQ(one.state<std::vector<int>>().size(), 1u);
  EXPECT_TRUE(two.state<std::vector<int>>().empty());
  EXPECT_TRUE(one.state<std::vector<float>>().empty());
}

TEST(Launch, EveryIndexExactlyOnceWhateverTheThreads) {
  for (const int threads : {1, 2, 4}) {
    const Context context = Context::cpu(threads);
    std::vector<int> hits(1000);
    parallel_for(context, 1000, [&](std::int64_t i, int thread) {
      EXPECT_LT(thread, threads);
      ++hits[static_cast<std::size_t>(i)];
    });
    EXPECT_EQ(hits, std::vector<int>(1000, 1));
    std::vector<int> blocks(1000);
    parallel_blocks(context, 1000, 37, [&](std::int64_t begin, std::int64_t end, int) {
      EXPECT_EQ(begin % 37, 0);
      for (std::int64_t i = begin; i < end; ++i) ++blocks[static_cast<std::size_t>(i)];
    });
    EXPECT_EQ(blocks, std::vector<int>(1000, 1));
  }
  parallel_for(Context::cpu(2), 0, [](std::int64_t, int) { FAIL(); });
}

TEST(Launch, ExceptionsReachTheCaller) {
  for (const int threads : {1, 2, 4}) {
    const Context context = Context::cpu(threads);
    try {
      parallel_for(context, 100, [](std::int64_t i, int) {
        if (i == 37) throw DataError("piece {}", i);
      });
      ADD_FAILURE() << "nothing thrown";
    } catch (const DataError& error) {
      EXPECT_STREQ(error.what(), "piece 37");
    }
    std::atomic<int> ran = 0;
    parallel_for(context, 100, [&](std::int64_t, int) { ++ran; });
    EXPECT_EQ(ran, 100);
  }
}

TEST(Launch, RowsPerBlockIsNeverZero) {
  EXPECT_EQ(rows_per_block(0), kElementsPerBlock);
  EXPECT_EQ(rows_per_block(kElementsPerBlock * 3), 1);
  EXPECT_EQ(rows_per_block(kElementsPerBlock / 4), 4);
}

TEST(OrderedSum, AddsEveryTermOnce) {
  for (std::int64_t n = 0; n < 70; ++n) {
    const std::int64_t expected = n * (n - 1) / 2;
    EXPECT_EQ(ordered_sum(n, [](std::int64_t i) { return static_cast<double>(i); }), static_cast<double>(expected));
  }
}

TEST(Check, NamesWhatWasExpectedAndFound) {
  const Context context = Context::cpu(1);
  const Buffer buffer(Device::kCpu, DType::kFloat32, {2, 3});
  require_tensor(context, "op: x", buffer.tensor(), {DType::kBFloat16, DType::kFloat32}, {2, kAnySize});
  try {
    require_tensor(context, "op: x", buffer.tensor(), {DType::kInt32, DType::kBFloat16}, {kAnySize, 4});
    ADD_FAILURE() << "not refused";
  } catch (const ShapeError& error) {
    EXPECT_STREQ(error.what(), "op: x: expected int32 or bfloat16 [any, 4], found float32 [2, 3]");
    EXPECT_EQ(error.code(), ExitCode::kInternal);
  }
  EXPECT_THROW(require_tensor(context, "op: x", buffer.tensor(), {DType::kFloat32}, {6}), ShapeError);
  EXPECT_THROW(require_tensor(context, "op: x", Tensor(nullptr, DType::kFloat32, {2}), {DType::kFloat32}, {2}),
               ShapeError);
  EXPECT_THROW(require_tensor(context, "op: x", Tensor(buffer.data(), DType::kFloat32, {6}, Device::kCuda),
                              {DType::kFloat32}, {6}),
               ShapeError);
}

}  // namespace
}  // namespace tadapt
