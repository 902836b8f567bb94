// Event files are, byte for byte, what TensorBoard's own writer makes of the same scalars.
#include "runtime/report/tensorboard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/temporary_directory.h"

namespace tadapt {
namespace {

std::string hex(const std::string& bytes) {
  std::string text;
  for (const unsigned char byte : bytes) text += fmt::format("{:02x}", byte);
  return text;
}

TEST(TensorboardTest, TheBytesOfTensorboardItself) {
  RealFileSystem files;
  const testing::TemporaryDirectory folder;
  write_atomically(files, folder / "metrics.jsonl",
                   "{\"step\":300,\"trainees\":{\"x\":{}},\"note\":\"no figure\"}\n"
                   "{\"step\":300,\"held_out\":{}}\n"
                   "{\"step\":300,\"loss\":0.5,\"nothing\":null}\n");
  EXPECT_EQ(write_tensorboard(files, folder / "metrics.jsonl", folder / "events"), 1);
  // RecordWriter of TensorBoard 2.20.0: Event(file_version="brain.Event:2"), then Event(step=300) with loss/all = 0.5
  EXPECT_EQ(hex(read_text(files, folder / "events/events.out.tfevents.0000000000.tadapt")),
            "0f000000000000006d532b091a0d627261696e2e4576656e743a32fc985129"
            "16000000000000004f61be2810ac022a110a0f0a086c6f73732f616c6c150000003fc277f376");
}

}  // namespace
}  // namespace tadapt
