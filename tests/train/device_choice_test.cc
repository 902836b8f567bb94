#include "runtime/train/device_choice.h"

#include <gtest/gtest.h>

#include "tests/support/devices.h"

namespace tadapt {
namespace {

using Kind = DeviceRequest::Kind;

TEST(ParseDevice, TakesFourForms) {
  for (const auto& [text, kind, index] :
       {std::tuple("auto", Kind::kAuto, -1), std::tuple("cpu", Kind::kCpu, -1), std::tuple("cuda", Kind::kCuda, -1),
        std::tuple("cuda:12", Kind::kCuda, 12)}) {
    DeviceRequest request;
    ASSERT_TRUE(parse_device(text, request)) << text;
    EXPECT_EQ(request.kind, kind) << text;
    EXPECT_EQ(request.index, index) << text;
  }
}

TEST(ParseDevice, RefusesTheRest) {
  for (const char* text : {"", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda:1x", "cuda: 1", "cuda1", "cpu:0"}) {
    DeviceRequest request;
    EXPECT_FALSE(parse_device(text, request)) << text;
  }
}

TEST(ChooseDevice, TheCpuWithItsThreads) {
  SelfCommunicator self;
  const Context context = choose_device({.kind = Kind::kCpu}, {.local_rank = 3, .threads = 2}, self, {});
  EXPECT_EQ(context.device(), Device::kCpu);
  EXPECT_EQ(context.threads(), 2);
}

TEST(ChooseDevice, AutoTakesAGpuWhereThereIsOne) {
  SelfCommunicator self;
  const Context context = choose_device({}, {.local_rank = 3, .threads = 2}, self, {});
  EXPECT_EQ(context.device(), testing::has_gpu() ? Device::kCuda : Device::kCpu);
}

TEST(ChooseDevice, AGpuThatWasAskedForIsNeverReplaced) {
  SelfCommunicator self;
  const DeviceRequest request{.kind = Kind::kCuda, .index = 977};
  EXPECT_THROW(choose_device(request, {}, self, {}), ConfigError);
  if (testing::has_gpu()) return;
  EXPECT_THROW(choose_device({.kind = Kind::kCuda}, {}, self, {}), ConfigError);
}

TEST(Arithmetic, NamesWhatComputes) {
  EXPECT_FALSE(arithmetic_of(Context::cpu(1)).empty());
  if (!testing::has_gpu()) return;
  EXPECT_NE(arithmetic_of(Context::cuda(0)), arithmetic_of(Context::cpu(1)));
}

}  // namespace
}  // namespace tadapt
