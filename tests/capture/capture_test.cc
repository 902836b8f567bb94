// Captures of a tiny pair: their bytes, and what happens when they are interrupted or cannot be.
#include "runtime/capture/capture.h"

#include "data/activation_cache_reader.h"
#include "data/activation_cache_verify.h"
#include "kernels/core/random.h"
#include "tests/capture/capture_fixture.h"
#include "tests/support/campaign.h"
#include "tests/support/child_process.h"
#include "tests/support/errors.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/thread_communicator.h"

namespace tadapt {
namespace {

using ::testing::AllOf;
using testing::CaptureSetup;
using testing::folder_content;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::TinyCapture;

class CaptureTest : public ::testing::Test {
 protected:
  void SetUp() override { testing::write_pair(directory_.path()); }
  TinyCapture tiny(const CaptureSetup& setup = {}) const { return TinyCapture(directory_.path(), setup); }
  std::filesystem::path out(const std::string& name = "cache") const { return directory_ / name; }

  testing::TemporaryDirectory directory_;
  RealFileSystem files_;
};

TEST_F(CaptureTest, TakesTheBytesThatWerePlanned) {
  TinyCapture made = tiny();
  made.run(out());
  std::uint64_t shards = 0, others = 0;
  for (const auto& [name, content] : folder_content(out())) (name.ends_with(".h5") ? shards : others) += content.size();
  EXPECT_EQ(shards, made.plan().size.shard_bytes);
  EXPECT_LE(others, made.plan().size.listing_bytes);
  EXPECT_THAT(verify_cache(ActivationCacheReader(files_, out())), ::testing::IsEmpty());
}

TEST_F(CaptureTest, BytesDoNotDependOnRanksThreadsOrBatches) {
  for (const DType compute : {DType::kFloat32, DType::kBFloat16}) {
    CaptureSetup setup{.compute = compute, .rows = {.tokens_per_sequence = 60, .seed = 4}};
    setup.format.row_dtype = DType::kBFloat16;
    tiny(setup).run(out("one"));
    const auto one = folder_content(out("one"));
    for (const auto& [threads, batch_tokens] : {std::pair<int, std::int64_t>{2, 1}, {3, 100'000}}) {
      setup.threads = threads;
      setup.batch_tokens = batch_tokens;
      tiny(setup).run(out("other"));
      EXPECT_TRUE(folder_content(out("other")) == one) << threads << " threads";
      std::filesystem::remove_all(out("other"));
    }
    const bool many = compute == DType::kBFloat16;
    for (const int ranks : many ? std::vector{3, 8} : std::vector{2}) {
      testing::run_ranks(ranks, [&](Communicator& world) {
        EXPECT_EQ(tiny(setup).run(files_, world, out("other")), CaptureOutcome::kDone);
      });
      EXPECT_TRUE(folder_content(out("other")) == one) << ranks << " ranks";
      std::filesystem::remove_all(out("other"));
    }
    std::filesystem::remove_all(out("one"));
  }
}

TEST_F(CaptureTest, BytesDoNotDependOnProcesses) {
  const std::string program = std::string(TADAPT_BINARY_DIR) + "/tests/capture_program";
  const auto run = [&](std::vector<std::string> command, const std::string& name) {
    command.insert(command.end(), {program, directory_.path().string(), out(name).string()});
    const testing::ChildResult result = testing::run_program(command, 60);
    EXPECT_EQ(result.exit_code, 0) << result.output;
    return folder_content(out(name));
  };
  const auto alone = run({}, "alone");
  EXPECT_GE(alone.size(), 12u);
  for (const int ranks : {1, 2, 3}) {
    EXPECT_TRUE(run(testing::mpirun(ranks, {}), std::to_string(ranks)) == alone) << ranks << " processes";
  }
}

TEST_F(CaptureTest, AKilledProcessIsGoneOnWith) {
  const std::string program = std::string(TADAPT_BINARY_DIR) + "/tests/capture_program";
  tiny().run(out("whole"));
  const std::int64_t cases = testing::campaign_cases(3);
  for (std::int64_t i = 0; i < cases; ++i) {
    const RandomStream random(testing::campaign_seed(), RandomPurpose::kTest, 7, static_cast<std::uint64_t>(i));
    const int after = 100 + static_cast<int>(random.below(0, 1500));
    std::filesystem::remove_all(out());
    {
      testing::ChildProcess victim({program, directory_.path().string(), out().string(), "slow"});
      ASSERT_TRUE(victim.read_until(
          [&](const std::string& said) {
            return said.size() > 0 && said.find("\nrows ") != std::string::npos &&
                   std::stoi(said.substr(said.rfind("\nrows ") + 6)) >= after;
          },
          60));
    }
    EXPECT_FALSE(std::filesystem::exists(out() / kManifestFile));
    EXPECT_EQ(tiny().run(out()), CaptureOutcome::kDone);
    EXPECT_TRUE(folder_content(out()) == folder_content(out("whole"))) << after;
  }
  if (!HasFailure())
    testing::tell_campaign("R7", "captures killed and gone on with: byte for byte the whole one", cases, cases);
}

/// Fails at one chosen rename, as if the process had died there.
class DyingFileSystem : public RealFileSystem {
 public:
  explicit DyingFileSystem(int renames) : left_(renames) {}
  void rename(const std::filesystem::path& from, const std::filesystem::path& to) override {
    if (left_-- == 0) throw WriteError("{}: died here", from.string());
    RealFileSystem::rename(from, to);
  }

 private:
  int left_;
};

TEST_F(CaptureTest, GoesOnAfterDyingAtAnyRename) {
  tiny().run(out("whole"));
  const auto whole = folder_content(out("whole"));
  SelfCommunicator self;
  for (int renames = 0;; ++renames) {
    DyingFileSystem dying(renames);
    TinyCapture job = tiny();
    try {
      job.run(dying, self, out());
      EXPECT_EQ(renames, 12) << "plan, five shards and listings, manifest";
      break;
    } catch (const WriteError&) {
    }
    const bool changed_ranks = renames % 2 == 1;
    testing::run_ranks(changed_ranks ? 2 : 1, [&](Communicator& world) {
      EXPECT_EQ(tiny().run(files_, world, out()), CaptureOutcome::kDone);
    });
    EXPECT_TRUE(folder_content(out()) == whole) << "died at rename " << renames;
    std::filesystem::remove_all(out());
  }
}

TEST_F(CaptureTest, StopsWhenAskedAndKeepsWholeShards) {
  tiny().run(out("whole"));
  int batches = 0;
  const auto stop_in = [&](TinyCapture& job, int limit) {
    batches = 0;
    job.stop_requested = [&batches, limit] { return batches >= limit; };
    job.progress = [&batches](const CaptureProgress&) { ++batches; };
  };
  int runs = 0;
  for (CaptureOutcome outcome = CaptureOutcome::kStopped; outcome == CaptureOutcome::kStopped; ++runs) {
    ASSERT_LT(runs, 10);
    TinyCapture job = tiny();
    stop_in(job, 4);
    outcome = job.run(out());
  }
  EXPECT_GE(runs, 2);
  EXPECT_TRUE(folder_content(out()) == folder_content(out("whole")));
}

TEST_F(CaptureTest, RanksStopTogether) {
  testing::run_ranks(3, [&](Communicator& world) {
    TinyCapture job = tiny();
    int batches = 0;
    job.stop_requested = [&] { return world.rank() == 1 && batches == 2; };
    job.progress = [&](const CaptureProgress&) { ++batches; };
    EXPECT_EQ(job.run(files_, world, out()), CaptureOutcome::kStopped);
    EXPECT_EQ(batches, 3);
  });
}

TEST_F(CaptureTest, ProgressCountsAllRowsOnce) {
  const auto expect_progress = [&](int ranks) {
    testing::run_ranks(ranks, [&](Communicator& world) {
      TinyCapture job = tiny();
      std::int64_t last = 0;
      job.progress = [&](const CaptureProgress& now) {
        EXPECT_GE(now.rows_done, last);
        EXPECT_EQ(now.rows_total, job.plan().rows);
        last = now.rows_done;
      };
      job.run(files_, world, out());
      EXPECT_EQ(last, job.plan().rows);
    });
    std::filesystem::remove(out() / kManifestFile);
  };
  expect_progress(3);
  std::filesystem::remove(out() / "shard-000001.h5");
  expect_progress(2);
}

TEST_F(CaptureTest, DamagedShardsAreMadeAgainAndWholeOnesAreNot) {
  tiny().run(out());
  const auto whole = folder_content(out());
  std::filesystem::remove(out() / kManifestFile);
  std::string bytes = whole.at("shard-000001.h5");
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
  std::ofstream(out() / "shard-000001.h5", std::ios::binary) << bytes;
  const auto untouched = std::filesystem::last_write_time(out() / "shard-000002.h5");
  EXPECT_EQ(tiny().run(out()), CaptureOutcome::kDone);
  EXPECT_TRUE(folder_content(out()) == whole);
  EXPECT_EQ(std::filesystem::last_write_time(out() / "shard-000002.h5"), untouched);
}

TEST_F(CaptureTest, AShardThatIsMissingOrCutOffIsCapturedAgain) {
  tiny().run(out());
  const auto whole = folder_content(out());
  std::filesystem::remove(out() / "shard-000000.h5");
  std::filesystem::resize_file(out() / "shard-000002.h5", 100);
  SelfCommunicator self;
  EXPECT_FALSE(capture_is_complete(files_, self, tiny().identity(out())));
  CaptureSetup fewer;
  fewer.format.layers = {2};
  EXPECT_ERROR(tiny(fewer).run(out()), ConfigError, HasSubstr("layers: 0,2 there, 2 wanted"));
  EXPECT_EQ(tiny().run(out()), CaptureOutcome::kDone);
  EXPECT_TRUE(folder_content(out()) == whole);
}

TEST_F(CaptureTest, AWholeCacheServesSomeOfItsLayersAndWhateverCorpusItHas) {
  tiny().run(out());
  CaptureSetup fewer;
  fewer.format.layers = {2};
  SelfCommunicator self;
  CaptureIdentity identity = tiny(fewer).identity(out());
  EXPECT_TRUE(capture_is_complete(files_, self, identity));
  identity.provenance.erase(identity.provenance.begin());
  EXPECT_TRUE(capture_is_complete(files_, self, identity));
}

TEST_F(CaptureTest, AWholeCacheIsNotTouchedAndAnotherCaptureRefused) {
  SelfCommunicator self;
  TinyCapture made = tiny();
  EXPECT_FALSE(capture_is_complete(files_, self, made.identity(out())));
  made.run(out());
  EXPECT_TRUE(capture_is_complete(files_, self, made.identity(out())));
  TinyCapture again = tiny();
  again.progress = [](const CaptureProgress&) { ADD_FAILURE() << "ran again"; };
  EXPECT_EQ(again.run(out()), CaptureOutcome::kDone);

  CaptureSetup other;
  other.format.layers = {0, 1, 2};
  other.format.sequences_per_shard = 4;
  const auto refusal = [](const char* file) {
    return AllOf(HasSubstr(file), HasSubstr("layers: 0,2 there, 0,1,2 wanted"),
                 HasSubstr("cache.sequences_per_shard: 5 there, 4 wanted"), Not(HasSubstr("width")));
  };
  EXPECT_ERROR(tiny(other).run(out()), ConfigError, refusal("manifest.json"));
  std::filesystem::remove(out() / kManifestFile);
  EXPECT_ERROR(tiny(other).run(out()), ConfigError, refusal("plan.json"));
  CaptureIdentity changed = tiny().identity(out());
  changed.provenance["model.target"] = "another";
  EXPECT_ERROR(capture_is_complete(files_, self, changed), ConfigError,
               HasSubstr("model.target: t there, another wanted"));
  std::ofstream(out() / kCapturePlanFile) << "[1]";
  EXPECT_ERROR(tiny().run(out()), DataError, HasSubstr("plan.json"));
}

/// A disk with little space.
class SmallDisk : public RealFileSystem {
 public:
  std::uint64_t free_bytes(const std::filesystem::path&) override { return 12'345; }
};

TEST_F(CaptureTest, RefusesADiskThatIsTooSmall) {
  SmallDisk files;
  SelfCommunicator self;
  TinyCapture job = tiny();
  const std::string needed = std::to_string(job.plan().size.shard_bytes + job.plan().size.listing_bytes);
  EXPECT_ERROR(job.run(files, self, out()), WriteError,
               AllOf(HasSubstr(out().string()), HasSubstr(needed), HasSubstr("12345")));
  EXPECT_FALSE(std::filesystem::exists(out()));
}

TEST_F(CaptureTest, ACorpusThatChangedIsNoticed) {
  TinyCapture job = tiny();
  const CapturePlan& plan = job.plan();
  Context context = Context::cpu(1);
  const Decoder pair = Decoder::load_pair(context, files_, directory_ / "target", directory_ / "base", DType::kFloat32);
  SelfCommunicator self;
  const std::vector<std::int32_t> shorter(3, 1);
  CaptureJob changed{.files = files_,
                     .ranks = self,
                     .context = context,
                     .pair = pair,
                     .plan = plan,
                     .directory = out(),
                     .provenance = {},
                     .tokens = [&](std::int64_t i) {
                       return i == 2 ? std::span(shorter) : std::span(job.corpus()[static_cast<std::size_t>(i)]);
                     }};
  EXPECT_ERROR(capture(changed), DataError, AllOf(HasSubstr("sequence 2"), HasSubstr("3 tokens")));
}

}  // namespace
}  // namespace tadapt
