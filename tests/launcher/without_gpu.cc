// What the command line does is tested on the CPU: device code that runs on the host is slow.
#include <gtest/gtest.h>

#include <cstdlib>

namespace {

class WithoutGpu : public ::testing::Environment {
 public:
  /// Inherited by every program that a test starts.
  void SetUp() override { setenv("CUDA_VISIBLE_DEVICES", "", 1); }
};

const ::testing::Environment* const kWithoutGpu = ::testing::AddGlobalTestEnvironment(new WithoutGpu);

}  // namespace
