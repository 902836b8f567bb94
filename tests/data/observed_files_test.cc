// Transfers are told, everything else is passed on.
#include "data/observed_files.h"

#include <gtest/gtest.h>

#include "tests/support/temporary_directory.h"

namespace tadapt {
namespace {

TEST(ObservedFileSystem, TellsOfEveryTransfer) {
  RealFileSystem real;
  const testing::TemporaryDirectory folder;
  int transfers = 0;
  std::uint64_t read = 0, written = 0;
  ObservedFileSystem files(real, [&](const FileTransfer& transfer) {
    ++transfers;
    read += transfer.read;
    written += transfer.written;
    EXPECT_EQ(transfer.path.parent_path(), folder.path());
  });
  write_atomically(files, folder / "a", "text");
  EXPECT_EQ(transfers, 1);
  EXPECT_EQ(read_text(files, folder / "a"), "text");
  EXPECT_EQ(transfers, 2);
  EXPECT_EQ(read, 4u);
  EXPECT_EQ(written, 4u);
  EXPECT_TRUE(files.exists(folder / "a"));
  EXPECT_EQ(files.list(folder.path()), std::vector<std::string>{"a"});
  EXPECT_EQ(files.file_size(folder / "a"), 4u);
  const auto lock = files.lock(folder / "lock", "one");
  EXPECT_THROW(real.lock(folder / "lock", "other"), WriteError);
  EXPECT_EQ(transfers, 2);
}

}  // namespace
}  // namespace tadapt
