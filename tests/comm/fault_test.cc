// One rank dies, stops, throws or hangs: the whole job ends in time, with the right exit code, saying why, and nothing
// stays behind.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <regex>
#include <thread>

#include "tests/support/child_process.h"

namespace tadapt {
namespace {
using ::testing::AllOf;
using testing::ChildProcess;
using testing::ChildResult;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr double kTimeoutSeconds = 2;  // of the ranks' waits
constexpr double kGoneSeconds = 10;
constexpr int kRanks = 4;

std::vector<std::string> job(const std::string& how) {
  const std::string program = std::string(TADAPT_BINARY_DIR) + "/tests/mpi_fault_program";
  return testing::mpirun(kRanks, {program, how, std::to_string(kTimeoutSeconds)});
}

std::vector<pid_t> pids_in(const std::string& output) {
  static const std::regex kPattern("pid ([0-9]+) of rank");
  std::vector<pid_t> pids;
  for (auto match = std::sregex_iterator(output.begin(), output.end(), kPattern); match != std::sregex_iterator();
       ++match) {
    pids.push_back(std::stoi((*match)[1]));
  }
  return pids;
}

bool started(const std::string& output) { return pids_in(output).size() == kRanks; }

void expect_no_orphans(const std::string& output) {
  const auto pids = pids_in(output);
  EXPECT_EQ(pids.size(), static_cast<std::size_t>(kRanks)) << output;
  for (const pid_t pid : pids) {
    for (int i = 0; i < 50 && testing::is_running(pid); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    EXPECT_FALSE(testing::is_running(pid)) << "process " << pid << " lives on";
  }
}

ChildResult expect_end(const std::string& how, double within_seconds) {
  const ChildResult result = testing::run_program(job(how), 60);
  EXPECT_FALSE(result.timed_out) << result.output;
  EXPECT_LT(result.seconds, within_seconds) << result.output;
  expect_no_orphans(result.output);
  return result;
}

TEST(Faults, AWellBehavedJobEndsWithZero) {
  const auto result = expect_end("none", kGoneSeconds);
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.output, Not(HasSubstr("tadapt:")));
}

TEST(Faults, AThrowingRankEndsAllWithItsExitCode) {
  const auto result = expect_end("throw", kGoneSeconds);
  EXPECT_EQ(result.exit_code, 65) << result.output;
  EXPECT_THAT(result.output, AllOf(HasSubstr("tadapt: rank 1/4"), HasSubstr("shard-000007.h5: chunk 3 is broken")));
}

TEST(Faults, AForeignExceptionIsAnInternalError) {
  const auto result = expect_end("foreign", kGoneSeconds);
  EXPECT_EQ(result.exit_code, 70) << result.output;
  EXPECT_THAT(result.output, HasSubstr("tadapt: rank 1/4"));
}

TEST(Faults, AnEscapingExceptionEndsAll) {
  const auto result = testing::run_program(job("escape"), 60);
  EXPECT_EQ(result.exit_code, 70) << result.output;
  EXPECT_LT(result.seconds, kGoneSeconds);
}

void expect_once(const std::string& output, const std::string& text) {
  const auto first = output.find(text);
  ASSERT_NE(first, std::string::npos) << output;
  EXPECT_EQ(output.find(text, first + 1), std::string::npos) << output;
}

TEST(Faults, AnErrorOfAllRanksIsSaidOnce) {
  const auto result = expect_end("refuse", kGoneSeconds);
  EXPECT_EQ(result.exit_code, 78) << result.output;
  expect_once(result.output, "unknown key 'lamda'");
}

TEST(Faults, AnErrorAllAgreeOnIsSaidByTheRankThatHasIt) {
  const auto result = expect_end("agree", kGoneSeconds);
  EXPECT_EQ(result.exit_code, 65) << result.output;
  expect_once(result.output, "model.safetensors: truncated");
  EXPECT_THAT(result.output, HasSubstr("tadapt: rank 2/4"));
}

TEST(Faults, AKilledRankEndsAll) {
  const auto result = expect_end("kill", kGoneSeconds);
  EXPECT_NE(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.output, HasSubstr("rank 1"));
}

TEST(Faults, ASegfaultEndsAll) {
  const auto result = expect_end("segfault", kGoneSeconds);
  EXPECT_NE(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.output, HasSubstr("rank 1"));
}

TEST(Faults, ARankThatLeavesEndsAll) {
  const auto result = expect_end("leave", kGoneSeconds);
  EXPECT_NE(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.output, HasSubstr("rank 1"));
}

TEST(Faults, AStoppedRankIsNamedWhenTheTimeoutIsOver) {
  const auto result = expect_end("stop", kTimeoutSeconds + kGoneSeconds);
  EXPECT_EQ(result.exit_code, 5) << result.output;
  EXPECT_THAT(result.output, AllOf(HasSubstr("for rank 1 in '"), HasSubstr("step 5'")));
}

TEST(Faults, AHangingRankIsNamedWhenTheTimeoutIsOver) {
  const auto result = expect_end("sleep", kTimeoutSeconds + kGoneSeconds);
  EXPECT_EQ(result.exit_code, 5) << result.output;
  EXPECT_THAT(result.output, AllOf(HasSubstr("for rank 1 in '"), HasSubstr("step 5'")));
}

TEST(Faults, NothingOutlivesAKilledLauncher) {
  ChildProcess launcher(job("forever"));
  ASSERT_TRUE(launcher.read_until(started, 30)) << launcher.output();
  kill(launcher.pid(), SIGKILL);
  expect_no_orphans(launcher.wait(kGoneSeconds).output);
}

TEST(Faults, AForwardedSignalStopsAllRanksAtTheSameStep) {
  ChildProcess launcher(job("forever"));
  ASSERT_TRUE(launcher.read_until(started, 30)) << launcher.output();
  kill(launcher.pid(), SIGUSR1);
  const auto result = launcher.wait(kGoneSeconds);
  EXPECT_FALSE(result.timed_out);
  EXPECT_EQ(result.exit_code, 75) << result.output;
  expect_no_orphans(result.output);
}

TEST(Faults, WithoutALauncherOneProcessIsAllThereIs) {
  const std::string program = std::string(TADAPT_BINARY_DIR) + "/tests/mpi_fault_program";
  EXPECT_EQ(testing::run_program({program, "none", "2"}, 20).exit_code, 0);
  const auto refused = testing::run_program({program, "refuse", "2"}, 20);
  EXPECT_EQ(refused.exit_code, 78);
  EXPECT_THAT(refused.output, HasSubstr("tadapt: rank 0/1"));
}

TEST(Faults, ProcessesThatMpiDoesNotConnectRefuseToRunBesideEachOther) {
  const std::string program = std::string(TADAPT_BINARY_DIR) + "/tests/mpi_fault_program";
  const auto result = testing::run_program({"env", "SLURM_STEP_NUM_TASKS=3", program, "none", "2"}, 20);
  EXPECT_EQ(result.exit_code, 78) << result.output;
  EXPECT_THAT(result.output, HasSubstr("srun --mpi=pmix"));
}

}  // namespace
}  // namespace tadapt
