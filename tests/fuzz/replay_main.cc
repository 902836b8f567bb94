// Feeds a fuzz target with the files of the folders it is given: what was found once stays mended, without libFuzzer.
#include <fmt/format.h>

#include <filesystem>

#include "tests/fuzz/fuzz.h"

int main(int count, char** words) {
  int files = 0;
  for (int i = 1; i < count; ++i) {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(words[i])) {
      if (!entry.is_regular_file()) continue;
      tadapt::RealFileSystem system;
      const std::string bytes = tadapt::read_text(system, entry.path());
      LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
      ++files;
    }
  }
  fmt::print("{} inputs\n", files);
  return files > 0 ? 0 : 1;
}
