// Checkpoints when nothing fails: protocol, names, pruning, refusals.
#include "data/checkpoint.h"

#include "tests/data/checkpoint_fixture.h"
#include "tests/support/errors.h"
#include "tests/support/faulty_file_system.h"
#include "tests/support/temporary_directory.h"

namespace tadapt {
namespace {
namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using namespace testing;  // NOLINT: tests/support

void replace_text(FileSystem& files, const fs::path& path, const std::string& text) {
  files.open(path, OpenMode::kCreate)->write(0, std::as_bytes(std::span(text)));
}

class CheckpointTest : public ::testing::Test {
 protected:
  std::optional<CheckpointInfo> find() {
    return find_checkpoint(files_, kRunDirectory, [&](const fs::path& path, const std::string& reason) {
      rejected_.push_back(path.filename().string());
      reasons_.push_back(reason);
    });
  }
  /// Changes a manifest's fields and gives it a checksum that fits, by the description of the format alone.
  void rewrite_manifest(const fs::path& checkpoint, const std::function<void(nlohmann::json&)>& change) {
    auto manifest = nlohmann::json::parse(read_text(files_, checkpoint / "MANIFEST"));
    change(manifest);
    manifest.erase("crc32c");
    const std::string rest = manifest.dump(1) + "\n";
    manifest["crc32c"] = fmt::format("{:08x}", crc32c(std::as_bytes(std::span(rest))));
    replace_text(files_, checkpoint / "MANIFEST", manifest.dump(1) + "\n");
  }

  FaultyFileSystem files_;
  std::vector<std::string> rejected_, reasons_;
};

TEST_F(CheckpointTest, NothingThereIsNoError) {
  EXPECT_FALSE(find().has_value());
  EXPECT_TRUE(list_checkpoints(files_, kRunDirectory).empty());
  files_.make_directories(kRunDirectory);
  EXPECT_FALSE(find().has_value());
}

TEST_F(CheckpointTest, NoneThatVerifiesIsAnErrorNamingAll) {
  save_example(files_, 1);
  save_example(files_, 2);
  for (const char* name : {"step-000000001", "step-000000002"})
    files_.content(kRunDirectory / name / "layer-000.safetensors").back() ^= std::byte{1};
  EXPECT_ERROR(find(), DataError, HasSubstr("all are damaged: step-000000002, step-000000001"));
  EXPECT_THAT(rejected_, ElementsAre("step-000000002", "step-000000001"));
}

TEST_F(CheckpointTest, WhatCannotBeReadIsNotTakenForDamage) {
  save_example(files_, 1);
  save_example(files_, 2);
  const std::int64_t start = files_.operations();
  find();
  const std::int64_t reads = files_.operations() - start;
  EXPECT_GT(reads, 10);
  for (std::int64_t failing = 1; failing <= reads; ++failing) {
    files_.fail_at(files_.operations() + failing, "Stale file handle");
    EXPECT_ERROR(find(), ReadError, HasSubstr("Stale file handle"));
  }
  EXPECT_TRUE(rejected_.empty());
}

TEST_F(CheckpointTest, PruneDoesNotReadWhatIsKnownToVerify) {
  save_example(files_, 1, 3);
  const auto operations = [&](const std::set<fs::path>& verified) {
    FaultyFileSystem files = files_;
    CheckpointWriter writer(files, kRunDirectory, 2);
    writer.prepare();
    writer.commit(write_example_parts(files, 2), example_state(2));
    const std::int64_t before = files.operations();
    writer.prune(3, verified);
    return files.operations() - before;
  };
  EXPECT_GT(operations({}), 5);
  EXPECT_EQ(operations({kRunDirectory / "step-000000001"}), 1);  // lists the folder
}

TEST_F(CheckpointTest, WhatIsSavedLoads) {
  save_example(files_, 1234);
  const auto info = find();
  ASSERT_TRUE(info.has_value());
  EXPECT_EQ(info->path, kRunDirectory / "step-000001234");
  EXPECT_EQ(info->step, 1234);
  EXPECT_TRUE(is_whole_example(files_, *info));
  EXPECT_EQ(read_part(files_, *info, "layer-000.safetensors").metadata.at("kind"), "adapter");
  EXPECT_TRUE(rejected_.empty());
  EXPECT_THAT(files_.list(kRunDirectory), ElementsAre("LATEST", "step-000001234"));
  EXPECT_THAT(files_.list(info->path),
              ElementsAre("MANIFEST", "layer-000.optimizer.safetensors", "layer-000.safetensors",
                          "layer-001.optimizer.safetensors", "layer-001.safetensors", "state.json"));
  EXPECT_EQ(read_text(files_, kRunDirectory / "LATEST"), "step-000001234\n");
}

TEST_F(CheckpointTest, RealFilesReadBackAndEqualSavesGiveEqualBytes) {
  RealFileSystem real;
  const TemporaryDirectory folder;
  std::vector<std::string> texts[2];
  for (const int run : {0, 1}) {
    const fs::path directory = folder / std::to_string(run);
    CheckpointWriter writer(real, directory, 5);
    writer.prepare();
    ExamplePart part(5, 0);
    const PartRecord record = writer.write_part("a.safetensors", part.optimizer(), {{"x", "y"}});
    const fs::path path = writer.commit({record}, example_state(5));
    writer.prune(1);
    for (const std::string& name : real.list(path)) texts[run].push_back(read_text(real, path / name));
    const auto info = find_checkpoint(real, directory, [](const auto&, const std::string& why) { FAIL() << why; });
    ASSERT_TRUE(info.has_value());
    EXPECT_TRUE(same_tensors(read_part(real, *info, "a.safetensors"), part.optimizer()));
  }
  EXPECT_EQ(texts[0].size(), 3u);
  EXPECT_EQ(texts[0], texts[1]);
}

TEST_F(CheckpointTest, OpenReadsManifestAndStateOnly) {
  save_example(files_, 3);
  files_.remove(kRunDirectory / "step-000000003/layer-000.safetensors");
  const CheckpointInfo info = open_checkpoint(files_, kRunDirectory / "step-000000003");
  EXPECT_EQ(info.state, example_state(3));
  EXPECT_ERROR(verify_checkpoint(files_, info.path), MissingInputError, HasSubstr("layer-000.safetensors"));
  EXPECT_ERROR(read_part(files_, info, "layer-000.safetensors"), MissingInputError, HasSubstr("layer-000"));
  EXPECT_ERROR(read_part(files_, info, "layer-007.safetensors"), DataError, HasSubstr("no part \"layer-007"));
}

TEST_F(CheckpointTest, NewestComesFirstByNumberNotByText) {
  for (const std::int64_t step : {999'999'999, 1'000'000'000, 20}) save_example(files_, step, 9);
  EXPECT_THAT(list_checkpoints(files_, kRunDirectory),
              ElementsAre(kRunDirectory / "step-1000000000", kRunDirectory / "step-999999999",
                          kRunDirectory / "step-000000020"));
  EXPECT_EQ(find()->step, 1'000'000'000);
}

TEST_F(CheckpointTest, OtherNamesAreNotLookedAt) {
  save_example(files_, 10);
  for (const char* name : {"step-000000011.tmp", "step-12", "step-0000000013", "step-000000014.1", "step-000000015.x",
                           "step--00000016", "step-000000017 ", "step-99999999999999999999", "metrics.jsonl"}) {
    files_.make_directories(kRunDirectory / name);
  }
  EXPECT_EQ(find()->step, 10);
  EXPECT_TRUE(rejected_.empty());
}

TEST_F(CheckpointTest, PrepareRemovesUnfinishedSaves) {
  files_.make_directories(kRunDirectory / "step-000000003.tmp");
  replace_text(files_, kRunDirectory / "step-000000003.tmp/layer-000.safetensors", "rest");
  CheckpointWriter(files_, kRunDirectory, 4).prepare();
  EXPECT_THAT(files_.list(kRunDirectory), ElementsAre("step-000000004.tmp"));
}

TEST_F(CheckpointTest, PruneKeepsTheNewest) {
  for (const std::int64_t step : {1, 2, 3, 4}) save_example(files_, step, 2);
  EXPECT_THAT(list_checkpoints(files_, kRunDirectory),
              ElementsAre(kRunDirectory / "step-000000004", kRunDirectory / "step-000000003"));
}

TEST_F(CheckpointTest, PruneDoesNotCountDamagedOnes) {
  for (const std::int64_t step : {1, 2, 3}) save_example(files_, step, 9);
  files_.content(kRunDirectory / "step-000000003/layer-001.safetensors").back() ^= std::byte{1};
  save_example(files_, 4, 2);
  EXPECT_EQ(list_checkpoints(files_, kRunDirectory).size(), 3u) << "4, the damaged 3, and 2";
  save_example(files_, 5, 2);
  EXPECT_THAT(list_checkpoints(files_, kRunDirectory),
              ElementsAre(kRunDirectory / "step-000000005", kRunDirectory / "step-000000004"));
}

TEST_F(CheckpointTest, TheSameStepAgainDoesNotTouchTheFirst) {
  save_example(files_, 7, 9);
  files_.content(kRunDirectory / "step-000000007/state.json").front() ^= std::byte{4};
  save_example(files_, 7, 9);
  EXPECT_EQ(find()->path, kRunDirectory / "step-000000007.2");
  save_example(files_, 7, 1);
  EXPECT_THAT(list_checkpoints(files_, kRunDirectory), ElementsAre(kRunDirectory / "step-000000007.3"));
  save_example(files_, 7, 1);
  EXPECT_EQ(find()->path, kRunDirectory / "step-000000007.4") << "newer than every one there was";
}

TEST_F(CheckpointTest, AnotherFormatVersionIsNamedAndNotFallenBackFrom) {
  save_example(files_, 1);
  save_example(files_, 2);
  rewrite_manifest(kRunDirectory / "step-000000002", [](auto& manifest) { manifest["format_version"] = 2; });
  EXPECT_ERROR(find(), DataError, AllOf(HasSubstr("step-000000002"), HasSubstr("version 2"), HasSubstr("version 1")));
}

TEST_F(CheckpointTest, AFolderUnderAnotherStepsNameIsRejected) {
  save_example(files_, 1);
  save_example(files_, 2);
  files_.rename(kRunDirectory / "step-000000002", kRunDirectory / "step-000000009");
  EXPECT_EQ(find()->step, 1);
  EXPECT_THAT(reasons_, ElementsAre(HasSubstr("holds step 2")));
}

TEST_F(CheckpointTest, ImpossibleManifestsAreRefusedAlthoughTheirChecksumFits) {
  save_example(files_, 1);
  const fs::path path = kRunDirectory / "step-000000001";
  const std::string original = read_text(files_, path / "MANIFEST");
  const auto expect_refused = [&](const std::function<void(nlohmann::json&)>& change, const std::string& words) {
    replace_text(files_, path / "MANIFEST", original);
    rewrite_manifest(path, change);
    EXPECT_ERROR(verify_checkpoint(files_, path), DataError, AllOf(HasSubstr("step-000000001"), HasSubstr(words)));
  };
  const char* part = "layer-000.safetensors";
  expect_refused([&](auto& m) { m["files"]["../x"] = m["files"][part]; }, "\"../x\" cannot be the name");
  expect_refused([&](auto& m) { m["files"][".."] = m["files"][part]; }, "\"..\" cannot be the name");
  expect_refused([&](auto& m) { m["files"].erase("state.json"); }, "no state.json");
  expect_refused([&](auto& m) { m.erase("files"); }, "no \"files\"");
  expect_refused([&](auto& m) { m["files"] = 3; }, "\"files\" is not an object");
  expect_refused([&](auto& m) { m["step"] = -1; }, "\"step\" is not a count");
  expect_refused([&](auto& m) { m["step"] = 2; }, "not the state of step 2");
  expect_refused([&](auto& m) { m["files"][part]["bytes"] = 1.5; }, "\"bytes\" is not a count");
  expect_refused([&](auto& m) { m["files"][part]["crc32c"] = "12345"; }, "not a checksum");
  expect_refused([&](auto& m) { m["files"][part]["crc32c"] = "0000000G"; }, "not a checksum");
  expect_refused([&](auto& m) { m["files"][part]["tensors"]["W_enc"]["bytes"] = INT64_MAX; }, "leaves its file");
  expect_refused([&](auto& m) { m["files"][part]["tensors"]["x"] = m["files"][part]["tensors"]["W_enc"]; }, "overlaps");
  expect_refused([&](auto& m) { m["files"][part]["bytes"] = 1; }, "leaves its file");
  replace_text(files_, path / "MANIFEST", original);
  EXPECT_TRUE(is_whole_example(files_, verify_checkpoint(files_, path)));
}

TEST_F(CheckpointTest, PartRecordsTravelAsTextAndBrokenOnesAreRefused) {
  const PartRecord record{"a", {10, 0x01020304, {{"t", {4, 6, 0xffffffff}}}}};
  EXPECT_EQ(PartRecord::from_json(record.to_json()).to_json(), record.to_json());
  EXPECT_ERROR(PartRecord::from_json("{}"), DataError, HasSubstr("no \"name\""));
  EXPECT_ERROR(PartRecord::from_json("[]"), DataError, HasSubstr("no \"name\""));
  EXPECT_ERROR(PartRecord::from_json("{"), DataError, HasSubstr("not valid JSON"));
}

TEST_F(CheckpointTest, MisuseIsAnInternalError) {
  CheckpointWriter writer(files_, kRunDirectory, 1);
  writer.prepare();
  const PartRecord part = writer.write_part("a", {});
  EXPECT_ERROR(writer.write_part("a/b", {}), DataError, HasSubstr("\"a/b\" cannot be the name"));
  EXPECT_ERROR(writer.write_part("MANIFEST", {}), DataError, HasSubstr("\"MANIFEST\""));
  EXPECT_ERROR(writer.commit({part, part}, example_state(1)), Error, HasSubstr("a was written twice"));
  EXPECT_ERROR(writer.commit({part}, 3), Error, HasSubstr("state"));
  EXPECT_ERROR(writer.prune(1), Error, HasSubstr("prune before commit"));
  writer.commit({part}, example_state(1));
  EXPECT_ERROR(writer.prune(0), Error, HasSubstr("keep 0"));
}

TEST_F(CheckpointTest, APartThatIsNotThereOrChangedIsNotCommitted) {
  CheckpointWriter writer(files_, kRunDirectory, 1);
  writer.prepare();
  const auto parts = write_example_parts(files_, 1);
  files_.content(kRunDirectory / "step-000000001.tmp/layer-001.safetensors").back() ^= std::byte{1};
  EXPECT_ERROR(writer.commit(parts, example_state(1)), WriteError,
               AllOf(HasSubstr("does not read back"), HasSubstr("layer-001.safetensors"), HasSubstr("\"W_enc\"")));
  files_.remove(kRunDirectory / "step-000000001.tmp/layer-000.safetensors");
  EXPECT_ERROR(writer.commit(parts, example_state(1)), WriteError, HasSubstr("layer-000.safetensors"));
  EXPECT_FALSE(find().has_value());
}

}  // namespace
}  // namespace tadapt
