// The metrics files: cut on resume, whatever their size and content, and gaps counted.
#include "runtime/train/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/faulty_file_system.h"
#include "tests/support/temporary_directory.h"

namespace tadapt {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class MetricsLogTest : public ::testing::Test {
 protected:
  static std::string line(std::int64_t step, std::size_t padding = 0) {
    return fmt::format(R"({{"step":{},"trainees":{{"{}":1}}}})", step, std::string(padding, 'x')) + "\n";
  }
  void put(const std::string& text) { write_atomically(files_, folder_ / kMetricsFile, text); }
  std::string text() { return read_text(files_, folder_ / kMetricsFile); }

  RealFileSystem files_;
  tadapt::testing::TemporaryDirectory folder_;
};

TEST_F(MetricsLogTest, IsCutToTheStepResumedFrom) {
  std::string expected, all;
  for (std::int64_t step = 1; step <= 40; ++step) {
    all += line(step, 100'000);  // lines that lie across the borders of the pieces read
    if (step <= 30) expected += line(step, 100'000);
  }
  put(all + R"({"step":41,"trai)");
  const MetricsLog log(files_, folder_.path(), 30);
  EXPECT_TRUE(text() == expected);
  EXPECT_EQ(log.missing_steps(), 0);
}

TEST_F(MetricsLogTest, WhatWasSyncedOutlivesALossOfPower) {
  tadapt::testing::FaultyFileSystem files;
  files.make_directories("/run");
  files.sync_directory("/");
  write_atomically(files, "/run/metrics.jsonl", line(1) + line(2) + line(3));
  {
    MetricsLog log(files, "/run", 2);
    files.lose_power(tadapt::testing::Unsynced::kLost);
  }
  EXPECT_EQ(read_text(files, "/run/metrics.jsonl"), line(1) + line(2));
  {
    MetricsLog log(files, "/run", 2);
    log.step({.step = 3, .names = {"layer-000"}, .trainees = {{}}});
    log.timing({.step = 3});
    log.sync();
    log.step({.step = 4, .names = {"layer-000"}, .trainees = {{}}});
    files.lose_power(tadapt::testing::Unsynced::kLost);
  }
  EXPECT_EQ(MetricsLog(files, "/run", 3).missing_steps(), 0);
  EXPECT_EQ(MetricsLog(files, "/run", 4).missing_steps(), 1);
  EXPECT_THAT(read_text(files, "/run/timing.jsonl"), HasSubstr("\"step\":3"));
}

TEST_F(MetricsLogTest, WhatIsNoLineOfOursIsDropped) {
  put(line(1) + "nonsense\n[1]\n{\"step\":\"2\"}\n{}\n\n" + line(2) + "{\"step\":2,\"held_out\":{}}\n" + line(3));
  const MetricsLog log(files_, folder_.path(), 2);
  EXPECT_EQ(text(), line(1) + line(2) + "{\"step\":2,\"held_out\":{}}\n");
  EXPECT_EQ(log.missing_steps(), 0);
}

TEST_F(MetricsLogTest, WhatWasNotFiniteIsForgottenOnResume) {
  put(line(1));
  MetricsLog(files_, folder_.path(), 1).not_finite(2, "layer 3: the loss");
  EXPECT_EQ(text(), line(1) + "{\"step\":2,\"not_finite\":\"layer 3: the loss\"}\n");
  const MetricsLog resumed(files_, folder_.path(), 1);
  EXPECT_EQ(text(), line(1));
}

TEST_F(MetricsLogTest, CountsLinesThatAreGone) {
  put(line(1) + line(4) + line(6) + "{\"step\":2,\"held_out\":{}}\n");
  EXPECT_EQ(MetricsLog(files_, folder_.path(), 6).missing_steps(), 3);
  EXPECT_EQ(MetricsLog(files_, folder_.path(), 6, 2).missing_steps(), 1);
  EXPECT_EQ(MetricsLog(files_, folder_.path(), 0).missing_steps(), 0);
  EXPECT_EQ(text(), "");
  EXPECT_EQ(MetricsLog(files_, folder_.path(), 5).missing_steps(), 5);
}

}  // namespace
}  // namespace tadapt
