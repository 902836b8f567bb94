// The watchdog bites when no beat comes, and only then.
#include "runtime/comm/watchdog.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <thread>

#include "kernels/core/error.h"

namespace tadapt {
namespace {
using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(Watchdog, NamesRankAndLastPhase) {
  std::promise<std::string> message;
  Watchdog watchdog("rank 3/8 node7", 0.1, [&](const std::string& text) { message.set_value(text); });
  watchdog.beat("step 11");
  watchdog.beat("step 12");
  auto expired = message.get_future();
  ASSERT_EQ(expired.wait_for(std::chrono::seconds(20)), std::future_status::ready);
  EXPECT_THAT(expired.get(), AllOf(HasSubstr("rank 3/8 node7"), HasSubstr("'step 12'")));
}

TEST(Watchdog, StaysQuietWhileBeatsCome) {
  std::atomic<int> expiries = 0;
  {
    Watchdog watchdog("rank 0/1 here", 2.0, [&](const std::string&) { ++expiries; });
    for (int i = 0; i < 60; ++i) {
      i % 2 == 0 ? watchdog.beat("busy") : watchdog.beat();
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
  }
  EXPECT_EQ(expiries, 0);
}

TEST(Watchdog, EndsImmediatelyWhenDestroyed) {
  const auto start = std::chrono::steady_clock::now();
  {
    const Watchdog watchdog("rank 0/1 here", 600);
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
}

TEST(Watchdog, EndsTheProcessWithItsExitCode) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        Watchdog watchdog("rank 1/2 here", 0.05);
        watchdog.beat("a loop without end");
        std::this_thread::sleep_for(std::chrono::seconds(30));
      },
      ::testing::ExitedWithCode(static_cast<int>(ExitCode::kWatchdog)), "rank 1/2 here.*'a loop without end'");
}

}  // namespace
}  // namespace tadapt
