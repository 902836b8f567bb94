// Checkpoints when things go wrong: power lost, bits flipped, disk full, at every operation or at seeded random places.
#include <gtest/gtest.h>

#include "data/checkpoint.h"
#include "tests/data/checkpoint_fixture.h"
#include "tests/support/campaign.h"
#include "tests/support/errors.h"
#include "tests/support/faulty_file_system.h"

namespace tadapt {
namespace {
namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using namespace testing;  // NOLINT: tests/support

constexpr std::int64_t kOldStep = 100, kNewStep = 200;

/// The old checkpoint, safely on disk.
FaultyFileSystem with_old_checkpoint() {
  FaultyFileSystem files;
  files.make_directories(kRunDirectory.parent_path());
  files.sync_directory("/");
  save_example(files, kOldStep);
  files.lose_power(Unsynced::kKept);
  return files;
}

std::int64_t operations_of_a_save(std::int64_t step) {
  FaultyFileSystem files = with_old_checkpoint();
  save_example(files, step, 1);
  return files.operations();
}

struct CrashOutcome {
  std::int64_t cases = 0;
  std::vector<std::string> violations;
};

struct CrashCampaign {
  std::int64_t step = kNewStep;
  std::int64_t random_draws = 0;  ///< besides "all lost" and "all kept"
  std::function<bool(const fs::path&)> ignored_syncs = {};
};

/// Saves a checkpoint over the old one (which is then pruned), with power lost after every single operation.
/// Promised: the old or the new one loads whole, the new one once commit() has returned, and the next save works.
CrashOutcome crash_everywhere(const CrashCampaign& campaign) {
  CrashOutcome outcome;
  const FaultyFileSystem start = with_old_checkpoint();
  const std::int64_t last = operations_of_a_save(campaign.step);
  for (std::int64_t crash = 0; crash <= last; ++crash) {
    for (std::int64_t draw = -2; draw < campaign.random_draws; ++draw) {
      FaultyFileSystem files = start;
      files.ignore_sync(campaign.ignored_syncs);
      files.crash_after(crash);
      Progress progress{};
      try {
        save_example(files, campaign.step, 1, progress);
      } catch (const SimulatedCrash&) {
      }
      const Unsynced unsynced = draw == -2 ? Unsynced::kLost : draw == -1 ? Unsynced::kKept : Unsynced::kRandom;
      files.lose_power(unsynced, campaign_seed() + static_cast<std::uint64_t>(crash * 1000 + draw));
      const std::int64_t loads = loadable_step(files);
      const bool promised = loads == campaign.step || (loads == kOldStep && progress == Progress::kWriting);
      if (promised) save_example(files, kNewStep + 1, 2);
      if (!promised || loadable_step(files) != kNewStep + 1) {
        outcome.violations.push_back(fmt::format("crash after {} of {}, draw {}: {} loads", crash, last, draw, loads));
      }
      ++outcome.cases;
    }
  }
  return outcome;
}

TEST(CheckpointReliabilityTest, PowerLossAfterEveryOperation) {
  const CrashOutcome outcome = crash_everywhere({.random_draws = campaign_cases(4)});
  EXPECT_EQ(outcome.violations, std::vector<std::string>());
  tell_campaign("R2", "crash after every operation, unsynced writes dropped, kept or some of them: old or new loads",
                outcome.cases - static_cast<std::int64_t>(outcome.violations.size()), outcome.cases);
}

TEST(CheckpointReliabilityTest, PowerLossWhileTheSameStepIsSavedAgain) {
  EXPECT_EQ(crash_everywhere({.step = kOldStep}).violations, std::vector<std::string>());
}

TEST(CheckpointReliabilityTest, PowerLossInTheFirstSaveEver) {
  FaultyFileSystem start;
  start.make_directories(kRunDirectory.parent_path());
  start.sync_directory("/");
  start.lose_power(Unsynced::kKept);
  FaultyFileSystem dry = start;
  save_example(dry, kNewStep);
  for (std::int64_t crash = 0; crash <= dry.operations(); ++crash) {
    for (const Unsynced unsynced : {Unsynced::kLost, Unsynced::kRandom}) {
      FaultyFileSystem files = start;
      files.crash_after(crash);
      Progress progress{};
      try {
        save_example(files, kNewStep, 2, progress);
      } catch (const SimulatedCrash&) {
      }
      files.lose_power(unsynced, campaign_seed() + static_cast<std::uint64_t>(crash));
      const std::int64_t loads = loadable_step(files);
      EXPECT_TRUE(loads == kNewStep || (loads == -1 && progress == Progress::kWriting)) << crash << ": " << loads;
    }
  }
}

/// Takes one fsync away at a time: the campaign above must notice each.
class MissingSyncTest : public ::testing::TestWithParam<const char*> {};

TEST_P(MissingSyncTest, IsNoticed) {
  const fs::path without = GetParam();
  const CrashOutcome outcome =
      crash_everywhere({.ignored_syncs = [&](const fs::path& path) { return path == without; }});
  EXPECT_FALSE(outcome.violations.empty()) << "nothing depends on the sync of " << without;
}

INSTANTIATE_TEST_SUITE_P(CheckpointReliability, MissingSyncTest,
                         ::testing::Values("/runs/one/step-000000200.tmp/layer-000.safetensors",
                                           "/runs/one/step-000000200.tmp/layer-001.optimizer.safetensors",
                                           "/runs/one/step-000000200.tmp/state.json",
                                           "/runs/one/step-000000200.tmp/MANIFEST", "/runs/one/step-000000200.tmp",
                                           "/runs/one"));

/// The first of these parts' tensors, in file order, that holds byte `at` or, for a truncation, bytes from there on.
std::string tensor_at(const PartRecord& part, std::uint64_t at, bool or_later) {
  const std::pair<const std::string, TensorRecord>* found = nullptr;
  for (const auto& tensor : part.content.tensors) {
    const auto& [offset, bytes, crc] = tensor.second;
    const bool hit = at < offset + bytes && (or_later ? bytes > 0 : offset <= at);
    if (hit && (found == nullptr || offset < found->second.offset)) found = &tensor;
  }
  return found == nullptr ? "" : found->first;
}

struct Damage {
  FaultyFileSystem files;
  std::vector<PartRecord> parts;  // of the newest checkpoint
  std::string file;               // what was damaged: file and, when the damage lies in one, tensor
  std::string tensor;
};

/// Flips one bit of, or cuts, one file of the newest checkpoint.
void damage(Damage& victim, std::uint64_t case_number) {
  const RandomStream random(campaign_seed(), RandomPurpose::kTest, 3, case_number);
  const fs::path folder = kRunDirectory / "step-000000200";
  const auto names = victim.files.list(folder);
  victim.file = names[random.below(0, names.size())];
  auto& content = victim.files.content(folder / victim.file);
  const std::uint64_t at = random.below(1, content.size());
  const bool cut = random.below(2, 4) == 0;
  if (cut) {
    content.resize(at);
  } else {
    content[at] ^= std::byte{1} << random.below(3, 8);
  }
  for (const PartRecord& part : victim.parts) {
    if (part.name == victim.file) victim.tensor = tensor_at(part, at, cut);
  }
}

TEST(CheckpointReliabilityTest, DamageIsNamedAndThePreviousOneUsed) {
  FaultyFileSystem files = with_old_checkpoint();
  CheckpointWriter writer(files, kRunDirectory, kNewStep);
  writer.prepare();
  const std::vector<PartRecord> parts = write_example_parts(files, kNewStep);
  writer.commit(parts, example_state(kNewStep));

  const std::int64_t cases = campaign_cases(400);
  std::int64_t good = 0, in_tensors = 0;
  for (std::int64_t i = 0; i < cases; ++i) {
    Damage victim{files, parts, "", ""};
    damage(victim, static_cast<std::uint64_t>(i));
    std::vector<std::string> reasons;
    const auto found = find_checkpoint(victim.files, kRunDirectory,
                                       [&](const fs::path&, const std::string& why) { reasons.push_back(why); });
    const bool previous = found && found->step == kOldStep && is_whole_example(victim.files, *found);
    const bool named = reasons.size() == 1 && reasons[0].find("step-000000200/" + victim.file) != std::string::npos &&
                       (victim.tensor.empty() || reasons[0].find('"' + victim.tensor + '"') != std::string::npos);
    EXPECT_TRUE(previous && named) << "case " << i << ": " << victim.file << " " << victim.tensor << ": "
                                   << (reasons.empty() ? "nothing rejected" : reasons[0]);
    good += previous && named ? 1 : 0;
    in_tensors += victim.tensor.empty() ? 0 : 1;
  }
  EXPECT_GT(in_tensors, cases / 4);
  tell_campaign("R3", "bit flips and truncations: file and tensor named, the previous one used", good, cases);
}

TEST(CheckpointReliabilityTest, DamageAfterOpeningIsSeenByReadPart) {
  FaultyFileSystem files = with_old_checkpoint();
  const CheckpointInfo info = open_checkpoint(files, kRunDirectory / "step-000000100");
  const std::string name = "layer-000.safetensors";
  const std::size_t size = files.content(info.path / name).size();
  const std::size_t data_start = info.parts.at(name).tensors.at("W_enc").offset;
  for (std::size_t at = 0; at < size; at += at < data_start ? 1 : 13) {
    FaultyFileSystem damaged = files;
    damaged.content(info.path / name)[at] ^= std::byte{1};
    EXPECT_ERROR(read_part(damaged, info, name), DataError,
                 AllOf(HasSubstr(name), HasSubstr(at < data_start ? "" : "\"W_enc\"")));
  }
}

TEST(CheckpointReliabilityTest, EveryOperationMayFailOnce) {
  const FaultyFileSystem start = with_old_checkpoint();
  const std::int64_t last = operations_of_a_save(kNewStep);
  for (const char* reason : {"No space left on device", "Input/output error", "Disk quota exceeded"}) {
    for (std::int64_t failing = 1; failing <= last; ++failing) {
      SCOPED_TRACE(fmt::format("operation {} of {}: {}", failing, last, reason));
      FaultyFileSystem files = start;
      files.fail_at(failing, reason);
      Progress progress{};
      EXPECT_ERROR(save_example(files, kNewStep, 1, progress), Error, AllOf(HasSubstr("/runs/one"), HasSubstr(reason)));
      if (files.failed_operation() == "write") {
        FaultyFileSystem again = start;
        again.fail_at(failing, reason);
        EXPECT_ERROR(save_example(again, kNewStep, 1, progress), WriteError, ContainsRegex("write [0-9]+ bytes"));
      }
      const std::int64_t loads = loadable_step(files);
      EXPECT_TRUE(loads == kNewStep || (loads == kOldStep && progress == Progress::kWriting)) << loads;
      save_example(files, kNewStep + 1, 1);
      EXPECT_EQ(loadable_step(files), kNewStep + 1);
    }
  }
  if (!HasFailure())
    tell_campaign("R8", "every operation of a save failing with ENOSPC, EIO, EDQUOT", 3 * last, 3 * last);
}

TEST(CheckpointReliabilityTest, AFullDiskLeavesThePreviousOneAndNamesPathAndBytes) {
  const FaultyFileSystem start = with_old_checkpoint();
  const std::uint64_t used = start.used_bytes();
  const std::int64_t cases = campaign_cases(50);
  for (std::int64_t i = 0; i < cases; ++i) {
    FaultyFileSystem files = start;
    const RandomStream random(campaign_seed(), RandomPurpose::kTest, 8, static_cast<std::uint64_t>(i));
    files.limit_space(used + random.below(0, used - 100));
    EXPECT_ERROR(save_example(files, kNewStep), WriteError,
                 AllOf(HasSubstr("/runs/one/step-000000200.tmp/"), ContainsRegex("[0-9]+ bytes"),
                       HasSubstr("No space left on device")));
    files.lose_power(Unsynced::kRandom, static_cast<std::uint64_t>(i));
    EXPECT_EQ(loadable_step(files), kOldStep);
    save_example(files, kNewStep + 1);
    EXPECT_EQ(loadable_step(files), kNewStep + 1);
  }
  if (!HasFailure()) tell_campaign("R8", "full disks: the previous one whole, path and bytes named", cases, cases);
}

}  // namespace
}  // namespace tadapt
