// Whether sync() and sync_directory() really ask the kernel. This binary's fsync counts, then does what libc's does.
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "data/file.h"
#include "tests/support/temporary_directory.h"

namespace {
int calls = 0;
}

extern "C" int fsync(int descriptor) {
  ++calls;
  return static_cast<int>(::syscall(SYS_fsync, descriptor));
}

namespace tadapt {
namespace {

TEST(FsyncTest, FilesAndFoldersAreBroughtToDisk) {
  RealFileSystem files;
  const testing::TemporaryDirectory folder;
  const auto file = files.open(folder / "file", OpenMode::kCreate);
  calls = 0;
  file->sync();
  EXPECT_EQ(calls, 1);
  files.sync_directory(folder.path());
  EXPECT_EQ(calls, 2);
}

}  // namespace
}  // namespace tadapt
