// Faults planted in kernels, which running device code on the host must show.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "kernels/core/cuda.cuh"
#include "kernels/core/memory.h"
#include "tests/support/sanitizers.h"

namespace tadapt {
namespace {

constexpr int kThreads = 128;

enum class Fault { kNone, kNoBarrier, kOutside, kLeftOutBarrier };

/// Turns a block's numbers round by way of shared memory.
template <Fault kFault>
__global__ void reverse(int* numbers) {
  __shared__ int room[kThreads];
  const int i = static_cast<int>(threadIdx.x);
  if (kFault == Fault::kLeftOutBarrier && i >= 64) return;
  room[i] = numbers[blockIdx.x * kThreads + i];
  if (kFault != Fault::kNoBarrier) __syncthreads();
  const int from = kThreads - 1 - i;
  numbers[blockIdx.x * kThreads + i + (kFault == Fault::kOutside ? 1 : 0)] = room[from];
}

std::vector<int> run(void (*kernel)(int*)) {
  constexpr int kBlocks = 3;
  Context context = Context::cuda(0);
  std::vector<int> numbers(kBlocks * kThreads);
  std::iota(numbers.begin(), numbers.end(), 0);
  const Buffer device(Device::kCuda, DType::kInt32, {kBlocks * kThreads});
  const Tensor host = Tensor::of(std::span(numbers), {kBlocks * kThreads});
  copy(context, host, device.tensor());
  cuda::launch(context, "reverse", {kBlocks, kThreads}, kernel, static_cast<int*>(device.data()));
  copy(context, device.tensor(), host);
  synchronize(context);
  return numbers;
}

std::vector<int> expected() {
  std::vector<int> numbers(3 * kThreads);
  std::iota(numbers.begin(), numbers.end(), 0);
  for (std::size_t begin = 0; begin < numbers.size(); begin += kThreads)
    std::reverse(numbers.begin() + static_cast<std::ptrdiff_t>(begin),
                 numbers.begin() + static_cast<std::ptrdiff_t>(begin + kThreads));
  return numbers;
}

TEST(PlantedFault, NoneGivesTheRightNumbers) { EXPECT_EQ(run(reverse<Fault::kNone>), expected()); }

TEST(PlantedFault, AMissingBarrierGivesWrongNumbers) { EXPECT_NE(run(reverse<Fault::kNoBarrier>), expected()); }

TEST(PlantedFault, ABarrierThatSomeLeaveOutIsAnError) {
  EXPECT_THROW(run(reverse<Fault::kLeftOutBarrier>), std::logic_error);
}

#if defined(TADAPT_ADDRESS_SANITIZER)
TEST(PlantedFault, AnAccessOutsideDeviceMemoryIsSeenByTheSanitizer) {
  EXPECT_DEATH(run(reverse<Fault::kOutside>), "heap-buffer-overflow");
}
#endif

/// A lane outside the mask of a warp operation.
__global__ void shuffle_outside(int* numbers) {
  numbers[threadIdx.x] = __shfl_xor_sync(0xffffu, numbers[threadIdx.x], 1);
}

TEST(PlantedFault, ALaneOutsideItsMaskIsAnError) { EXPECT_THROW(run(shuffle_outside), std::logic_error); }

/// Half a warp asks for a shuffle of the whole.
__global__ void half_a_warp(int* numbers) {
  if (threadIdx.x % 32 < 16) numbers[threadIdx.x] = __shfl_xor_sync(0xffffffffu, numbers[threadIdx.x], 1);
}

TEST(PlantedFault, AWarpOperationThatLanesLeaveOutIsAnError) { EXPECT_THROW(run(half_a_warp), std::logic_error); }

}  // namespace
}  // namespace tadapt
