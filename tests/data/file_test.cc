// RealFileSystem, its helpers and CRC32C.
#include "data/file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>

#include "kernels/core/error.h"
#include "tests/support/errors.h"
#include "tests/support/faulty_file_system.h"
#include "tests/support/temporary_directory.h"

namespace tadapt {
namespace {
using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::FaultyFileSystem;
using ::testing::HasSubstr;
using testing::SimulatedCrash;
using testing::TemporaryDirectory;
using testing::Unsynced;

std::span<const std::byte> bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

class FileTest : public ::testing::Test {
 protected:
  void put(const std::string& name, std::string_view text) {
    files_.open(folder_ / name, OpenMode::kCreate)->write(0, bytes(text));
  }
  RealFileSystem files_;
  TemporaryDirectory folder_;
};

TEST(Crc32cTest, StandardVectors) {
  EXPECT_EQ(crc32c(bytes("")), 0u);
  EXPECT_EQ(crc32c(bytes("123456789")), 0xE3069283u);
  EXPECT_EQ(crc32c(bytes(std::string(32, '\0'))), 0x8A9136AAu);  // RFC 3720, B.4
  EXPECT_EQ(crc32c(bytes(std::string(32, '\xff'))), 0x62A8AB43u);
}

TEST(Crc32cTest, ContinuesFromASeed) {
  const std::string text = "a longer text, cut at every place";
  for (std::size_t cut = 0; cut <= text.size(); ++cut) {
    EXPECT_EQ(crc32c(bytes(text.substr(cut)), crc32c(bytes(text.substr(0, cut)))), crc32c(bytes(text)));
  }
}

TEST_F(FileTest, WritesAtOffsetsAndReadsBack) {
  const auto file = files_.open(folder_ / "a", OpenMode::kCreate);
  file->write(4, bytes("efgh"));
  file->write(0, bytes("abcd"));
  file->sync();
  EXPECT_EQ(file->size(), 8u);
  EXPECT_EQ(read_text(files_, folder_ / "a"), "abcdefgh");
  file->truncate(3);
  EXPECT_EQ(read_text(files_, folder_ / "a"), "abc");
}

TEST_F(FileTest, CreateEmptiesAndReadWriteKeeps) {
  put("a", "old content");
  files_.open(folder_ / "a", OpenMode::kReadWrite)->write(0, bytes("new"));
  EXPECT_EQ(read_text(files_, folder_ / "a"), "new content");
  files_.open(folder_ / "a", OpenMode::kCreate);
  EXPECT_EQ(read_text(files_, folder_ / "a"), "");
}

TEST_F(FileTest, PreallocationKeepsTheSize) {
  const auto file = files_.open(folder_ / "a", OpenMode::kCreate);
  file->preallocate(0);
  file->preallocate(1 << 20);
  EXPECT_EQ(file->size(), 0u);
}

TEST_F(FileTest, ImpossiblePreallocationNamesPathAndBytes) {
  const auto file = files_.open(folder_ / "a", OpenMode::kCreate);
  EXPECT_ERROR(file->preallocate(std::uint64_t{1} << 61), WriteError,
               AllOf(HasSubstr((folder_ / "a").string()), HasSubstr("2305843009213693952 bytes")));
}

TEST_F(FileTest, FullDiskNamesPathBytesAndReason) {
  const auto file = files_.open("/dev/full", OpenMode::kCreate);
  EXPECT_ERROR(file->write(0, bytes("abcd")), WriteError,
               AllOf(HasSubstr("/dev/full"), HasSubstr("4 bytes"), HasSubstr("No space left on device")));
}

TEST_F(FileTest, WritingToAFileOpenedForReadingFails) {
  put("a", "x");
  EXPECT_ERROR(files_.open(folder_ / "a", OpenMode::kRead)->write(0, bytes("y")), WriteError,
               HasSubstr("Bad file descriptor"));
}

TEST_F(FileTest, ReadingPastTheEndNamesOffsetBytesAndSize) {
  put("a", "abcdef");
  const auto file = files_.open(folder_ / "a", OpenMode::kRead);
  std::vector<std::byte> out(5);
  EXPECT_ERROR(file->read(2, out), DataError,
               AllOf(HasSubstr("5 bytes wanted at offset 2"), HasSubstr("the file has 6")));
}

TEST_F(FileTest, MissingOrOddInputsAreNamed) {
  EXPECT_ERROR(files_.open(folder_ / "none", OpenMode::kRead), MissingInputError, HasSubstr("none"));
  EXPECT_ERROR(files_.open(folder_ / "none", OpenMode::kReadWrite), MissingInputError, HasSubstr("none"));
  EXPECT_ERROR(files_.open(folder_.path(), OpenMode::kRead), MissingInputError, HasSubstr("not a regular file"));
  EXPECT_ERROR(files_.open(folder_ / "none/a", OpenMode::kCreate), WriteError, HasSubstr("none/a"));
  EXPECT_ERROR(files_.file_size(folder_ / "none"), MissingInputError, HasSubstr("none"));
  EXPECT_ERROR(files_.list(folder_ / "none"), MissingInputError, HasSubstr("none"));
}

TEST_F(FileTest, ANamedPipeIsRefusedWithoutWaiting) {
  ASSERT_EQ(::mkfifo((folder_ / "pipe").c_str(), 0600), 0);
  EXPECT_ERROR(files_.open(folder_ / "pipe", OpenMode::kRead), MissingInputError, HasSubstr("not a regular file"));
}

TEST_F(FileTest, PathOperations) {
  files_.make_directories(folder_ / "d/e");
  put("d/e/two", "22");
  put("d/e/one", "1");
  EXPECT_THAT(files_.list(folder_ / "d/e"), ElementsAre("one", "two"));
  EXPECT_EQ(files_.file_size(folder_ / "d/e/two"), 2u);
  files_.rename(folder_ / "d/e", folder_ / "d/f");
  files_.sync_directory(folder_ / "d");
  EXPECT_FALSE(files_.exists(folder_ / "d/e"));
  files_.remove(folder_ / "d/f/one");
  files_.remove(folder_ / "d/f/one");
  EXPECT_THAT(files_.list(folder_ / "d/f"), ElementsAre("two"));
  files_.remove_all(folder_ / "d");
  files_.remove_all(folder_ / "d");
  EXPECT_FALSE(files_.exists(folder_ / "d"));
  EXPECT_ERROR(files_.rename(folder_ / "x", folder_ / "y"), WriteError, HasSubstr("x"));
  EXPECT_ERROR(files_.sync_directory(folder_ / "x"), WriteError, HasSubstr("x"));
  put("plain", "");
  EXPECT_ERROR(files_.make_directories(folder_ / "plain/d"), WriteError, HasSubstr("plain/d"));
}

TEST_F(FileTest, FreeSpaceIsThatOfTheNearestExistingFolder) {
  EXPECT_GT(files_.free_bytes(folder_.path()), 0u);
  EXPECT_GT(files_.free_bytes(folder_ / "not/yet/there"), 0u);
  EXPECT_GT(files_.free_bytes("relative/not/there"), 0u);
}

TEST_F(FileTest, ALockNamesItsHolderAndEndsWithIt) {
  auto held = files_.lock(folder_ / "lock", "job 17 on node3, pid 4711");
  EXPECT_ERROR(files_.lock(folder_ / "lock", "other"), WriteError,
               AllOf(HasSubstr("lock"), HasSubstr("job 17 on node3, pid 4711")));
  held.reset();
  held = files_.lock(folder_ / "lock", "x");
  EXPECT_EQ(read_text(files_, folder_ / "lock"), "x");
}

TEST_F(FileTest, ReadTextRefusesFilesOverItsCap) {
  put("a", "abcdef");
  EXPECT_EQ(read_text(files_, folder_ / "a", 6), "abcdef");
  EXPECT_ERROR(read_text(files_, folder_ / "a", 5), DataError, AllOf(HasSubstr("6 bytes"), HasSubstr("the 5 allowed")));
}

TEST_F(FileTest, AtomicWritesReplaceAndLeaveNothingBehind) {
  write_atomically(files_, folder_ / "a", "one");
  write_atomically(files_, folder_ / "a", "two");
  EXPECT_EQ(read_text(files_, folder_ / "a"), "two");
  EXPECT_THAT(files_.list(folder_.path()), ElementsAre("a"));
}

TEST(AtomicWriteTest, PowerLossAfterEveryOperationLeavesOldOrNew) {
  FaultyFileSystem start;
  write_atomically(start, "/a", "old text");
  start.lose_power(Unsynced::kLost);
  ASSERT_EQ(read_text(start, "/a"), "old text") << "durable once written";
  for (std::int64_t crash = 0; crash <= 6; ++crash) {
    for (std::uint64_t draw = 0; draw < 10; ++draw) {
      FaultyFileSystem files = start;
      files.crash_after(crash);
      bool returned = false;
      try {
        write_atomically(files, "/a", "new");
        returned = true;
      } catch (const SimulatedCrash&) {
      }
      files.lose_power(draw == 0 ? Unsynced::kLost : Unsynced::kRandom, draw);
      const std::string text = read_text(files, "/a");
      EXPECT_TRUE(text == "new" || (text == "old text" && !returned)) << crash << ": " << text;
    }
  }
}

TEST(AtomicWriteTest, AFailureLeavesTheOld) {
  FaultyFileSystem files;
  write_atomically(files, "/a", "old text");
  files.limit_space(files.used_bytes());
  EXPECT_ERROR(write_atomically(files, "/a", "new"), WriteError,
               AllOf(HasSubstr("/a.tmp: cannot write 3 bytes at offset 0"), HasSubstr("No space left on device")));
  EXPECT_EQ(read_text(files, "/a"), "old text");
}

}  // namespace
}  // namespace tadapt
