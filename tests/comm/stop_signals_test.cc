// Signals become a flag; a second one ends the process.
#include "runtime/comm/stop_signals.h"

#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <thread>

namespace tadapt {
namespace {

volatile std::sig_atomic_t former_handler_ran = 0;
void former_handler(int) { former_handler_ran = 1; }

TEST(StopSignals, TheFirstSignalOnlySetsTheFlag) {
  for (const auto& [number, name] : {std::pair{SIGTERM, "SIGTERM"}, {SIGUSR1, "SIGUSR1"}, {SIGUSR2, "SIGUSR2"}}) {
    const StopSignals signals;
    EXPECT_FALSE(signals.requested());
    EXPECT_EQ(signals.name(), "none");
    std::raise(number);
    EXPECT_TRUE(signals.requested());
    EXPECT_EQ(signals.signal(), number);
    EXPECT_EQ(signals.name(), name);
  }
}

TEST(StopSignals, TheSecondSignalEndsTheProcess) {
  EXPECT_EXIT(
      {
        const StopSignals signals;
        std::raise(SIGUSR1);
        std::raise(SIGTERM);
      },
      ::testing::ExitedWithCode(128 + SIGTERM), "");
}

TEST(StopSignals, AnEchoOfTheFirstIsNoSecondOne) {
  EXPECT_EXIT(
      {
        const StopSignals signals;
        std::raise(SIGUSR1);
        std::raise(SIGUSR1);
        std::this_thread::sleep_for(std::chrono::milliseconds(StopSignals::kEchoMs));
        std::fputs("still there", stderr);
        std::raise(SIGUSR1);
      },
      ::testing::ExitedWithCode(128 + SIGUSR1), "still there");
}

TEST(StopSignals, FormerHandlersComeBack) {
  std::signal(SIGUSR2, former_handler);
  {
    const StopSignals signals;
  }
  std::raise(SIGUSR2);
  EXPECT_EQ(former_handler_ran, 1);
  std::signal(SIGUSR2, SIG_DFL);
}

TEST(StopSignals, IgnoredForGoodOnceTheWorkIsDone) {
  EXPECT_EXIT(
      {
        {
          StopSignals signals;
          std::raise(SIGTERM);
          signals.ignore();
          std::raise(SIGTERM);
        }
        for (const int number : {SIGTERM, SIGUSR1, SIGUSR2}) std::raise(number);
        std::_Exit(75);
      },
      ::testing::ExitedWithCode(75), "");
}

}  // namespace
}  // namespace tadapt
