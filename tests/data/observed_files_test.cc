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
  ObservedFileSystem files(real, [&] { ++transfers; });
  write_atomically(files, folder / "a", "text");
  EXPECT_EQ(transfers, 1);
  EXPECT_EQ(read_text(files, folder / "a"), "text");
  EXPECT_EQ(transfers, 2);
  EXPECT_TRUE(files.exists(folder / "a"));
  EXPECT_EQ(files.list(folder.path()), std::vector<std::string>{"a"});
  EXPECT_EQ(files.file_size(folder / "a"), 4u);
  const auto lock = files.lock(folder / "lock", "one");
  EXPECT_THROW(real.lock(folder / "lock", "other"), WriteError);
  EXPECT_EQ(transfers, 2);
}

}  // namespace
}  // namespace tadapt
