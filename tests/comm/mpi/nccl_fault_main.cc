// NCCL fails in every way its stand-in knows: each rank gets an error that says what, within the bound. And a device
// gets stuck: no sum goes on without it.
#include <chrono>
#include <cstdlib>
#include <optional>

#include "kernels/core/cuda.cuh"
#include "kernels/core/memory.h"
#include "runtime/comm/device_group.h"
#include "runtime/comm/mpi_session.h"
#include "tests/comm/communicator_contract.h"
#include "tests/comm/mpi/report.h"

namespace tadapt {
namespace {
using ::testing::AllOf;
using ::testing::HasSubstr;

Communicator* world = nullptr;

/// More than the second as which a longer absence counts, so that a busy machine is no fault.
constexpr double kTimeoutSeconds = 1.2;
/// Bounds of the wait and of the abort, and what ranks lose to each other on shared cores.
constexpr double kWithinSeconds = 10;

struct Outcome {
  ExitCode code = ExitCode::kDone;
  std::string message;
};

template <class Body>
Outcome outcome_of(const Body& body) {
  try {
    body();
    return {};
  } catch (const Error& error) {
    return {error.code(), error.what()};
  }
}

class NcclFaults : public ::testing::TestWithParam<SumOrder> {
 protected:
  /// Four sums of 100 numbers by a group in which `how` happens; the third fails.
  Outcome sums_with(const std::string& how) {
    setenv("TADAPT_NCCL_FAIL", how.c_str(), 1);
    Context context = Context::cuda(0);
    const auto start = std::chrono::steady_clock::now();
    const Outcome outcome = outcome_of([&] {
      const auto group =
          make_device_group(world->split(0, world->rank(), "faulty group"), context, GetParam(), kTimeoutSeconds)
              .communicator;
      const Buffer values(Device::kCuda, DType::kFloat32, {100});
      for (int step = 0; step < 4; ++step) {
        auto sum = group->start_sum(values.tensor(), fmt::format("gradients of step {}", step));
        const Outcome first = outcome_of([&] { sum->wait(); });
        if (first.code == ExitCode::kDone) continue;
        EXPECT_TRUE(sum->done());
        expect_given_up(*sum, "gradients of step");
        expect_given_up(*group, values.tensor());
        throw Error(first.code, first.message);
      }
    });
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    EXPECT_LT(taken.count(), kWithinSeconds);
    world->barrier("after the fault");
    return outcome;
  }

  /// The tree needs log2 of the ranks' collectives a sum; the third collective then is in another step.
  int step_of_third() const {
    if (GetParam() == SumOrder::kFast) return 2;
    return world->size() == 2 ? 2 : 1;
  }
  std::string label_of_third() const { return fmt::format("'gradients of step {}'", step_of_third()); }
  std::string self() const { return fmt::format("rank {} of {}", world->rank(), world->size()); }

 private:
  void expect_given_up(PendingExchange& sum, const std::string& label) {
    const Outcome again = outcome_of([&] { sum.wait(); });
    EXPECT_EQ(again.code, ExitCode::kPeerFailed);
    EXPECT_THAT(again.message, AllOf(HasSubstr(label), HasSubstr("NCCL was given up")));
  }
  void expect_given_up(Communicator& group, Tensor values) {
    const Outcome next = outcome_of([&] { group.start_sum(values, "the next one"); });
    EXPECT_EQ(next.code, ExitCode::kPeerFailed);
    EXPECT_THAT(next.message, AllOf(HasSubstr("'the next one'"), HasSubstr("NCCL was given up")));
  }
};
INSTANTIATE_TEST_SUITE_P(Orders, NcclFaults, ::testing::Values(SumOrder::kFast, SumOrder::kFixed),
                         [](const auto& order) { return order.param == SumOrder::kFast ? "Fast" : "Fixed"; });

TEST_P(NcclFaults, NoneIsNone) { EXPECT_EQ(sums_with("").code, ExitCode::kDone); }

TEST_P(NcclFaults, AnErrorOnTheWayIsNamed) {
  const Outcome outcome = sums_with("async:3");
  EXPECT_EQ(outcome.code, ExitCode::kPeerFailed);
  EXPECT_THAT(outcome.message, AllOf(HasSubstr(self()), HasSubstr(label_of_third()), HasSubstr("system error")));
}

TEST_P(NcclFaults, ACollectiveThatIsRefusedIsNamed) {
  const Outcome outcome = sums_with("begin:3");
  EXPECT_EQ(outcome.code, ExitCode::kPeerFailed);
  EXPECT_THAT(outcome.message,
              AllOf(HasSubstr(self()), HasSubstr(label_of_third()), HasSubstr("nccl"), HasSubstr("system error")));
}

TEST_P(NcclFaults, ASumThatNeverEndsRunsIntoTheBound) {
  const Outcome outcome = sums_with("hang:3");
  EXPECT_EQ(outcome.code, ExitCode::kWatchdog);
  EXPECT_THAT(outcome.message, AllOf(HasSubstr(self()), HasSubstr("waited"), HasSubstr(label_of_third())));
}

TEST_P(NcclFaults, AnAbortThatHangsIsSaidAndLeftBehind) {
  const Outcome outcome = sums_with("hang-abort:3");
  EXPECT_EQ(outcome.code, ExitCode::kWatchdog);
  EXPECT_THAT(outcome.message, AllOf(HasSubstr(label_of_third()), HasSubstr("ncclCommAbort did not return")));
}

TEST_P(NcclFaults, AGroupThatDoesNotComeTogetherRunsIntoTheBound) {
  const Outcome outcome = sums_with("connect:0");
  EXPECT_EQ(outcome.code, ExitCode::kWatchdog);
  EXPECT_THAT(outcome.message, AllOf(HasSubstr(self()), HasSubstr("connecting the group")));
}

TEST_P(NcclFaults, ASumThatIsAbandonedEndsTheGroup) {
  setenv("TADAPT_NCCL_FAIL", "hang:1", 1);
  Context context = Context::cuda(0);
  const auto group =
      make_device_group(world->split(0, world->rank(), "abandoned"), context, GetParam(), kTimeoutSeconds).communicator;
  const Buffer values(Device::kCuda, DType::kFloat32, {100});
  group->start_sum(values.tensor(), "left alone").reset();
  const Outcome next = outcome_of([&] { group->start_sum(values.tensor(), "next"); });
  EXPECT_EQ(next.code, ExitCode::kPeerFailed);
  EXPECT_THAT(next.message, AllOf(HasSubstr("'next'"), HasSubstr("'left alone' was abandoned")));
}

/// As NCCL or, where all ranks are told to share one device, staged.
class DeviceLines : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Devices, DeviceLines, ::testing::Values("own", "shared"),
                         [](const auto& devices) { return std::string(devices.param); });

TEST_P(DeviceLines, NoSumOvertakesWhatWasAskedBefore) {
  unsetenv("TADAPT_NCCL_FAIL");
  const bool shared = GetParam() == std::string("shared");
  if (shared) setenv("TADAPT_DEVICE_SHARED", "1", 1);
  Context context = Context::cuda(0);
  const auto made =
      make_device_group(world->split(0, world->rank(), "lines"), context, SumOrder::kFast, kTimeoutSeconds);
  EXPECT_THAT(made.how, HasSubstr(shared ? "through host memory" : "NCCL"));
  const Buffer values(Device::kCuda, DType::kFloat32, {100});
  auto in_time = made.communicator->start_sum(values.tensor(), "in time");
  device_on_host::get_stuck(cuda::stream_of(context));
  auto too_early = made.communicator->start_sum(values.tensor(), "too early");
  for (int i = 0; i < 100; ++i) EXPECT_FALSE(too_early->done());
  in_time->wait();
  EXPECT_NE(outcome_of([&] { too_early->wait(); }).code, ExitCode::kDone);
  too_early.reset();
  world->barrier("lines done");
  unsetenv("TADAPT_DEVICE_SHARED");
}

}  // namespace
}  // namespace tadapt

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  tadapt::MpiSession session;
  const auto world = tadapt::make_communicator(session, 60);
  tadapt::world = world.get();
  return tadapt::testing::run_all_tests(session);
}
