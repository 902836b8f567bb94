// SmallRun: the real program on a few lines of the toy corpus, in a folder that a test may spoil.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "tests/support/child_process.h"
#include "tests/support/temporary_directory.h"

namespace tadapt::testing {

namespace fs = std::filesystem;

struct Ended {
  ExitCode code;
  std::string output;               ///< standard output and error together
  std::vector<std::string> errors;  ///< lines that begin with "tadapt: rank"
};

inline Ended run_shell(const std::string& command) {
  std::FILE* pipe = ::popen(fmt::format("timeout 100 {} 2>&1 </dev/null", command).c_str(), "r");
  Ended ended;
  for (std::array<char, 4096> buffer{}; const std::size_t count = std::fread(buffer.data(), 1, buffer.size(), pipe);)
    ended.output.append(buffer.data(), count);
  ended.code = static_cast<ExitCode>(WEXITSTATUS(::pclose(pipe)));
  std::istringstream lines(ended.output);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("tadapt: rank")) ended.errors.push_back(line);
  }
  return ended;
}

/// A small run of the toy pair in a folder of its own, which a test then spoils.
class SmallRun : public ::testing::Test {
 protected:
  void SetUp() override {
    prepare_for_mpi();
    for (const char* model : {"base", "target"}) fs::copy(toy_ / model, folder_ / model, fs::copy_options::recursive);
    std::ifstream corpus(toy_ / "train.jsonl");
    std::string line, lines;
    for (int i = 0; i < 24 && std::getline(corpus, line); ++i) lines += line + "\n";
    put("corpus.jsonl", lines);
    put("run.yaml",
        "run: {dir: run}\n"
        "model: {base: base, target: target}\n"
        "corpus: {train: corpus.jsonl}\n"
        "cache: {sequences_per_shard: 8}\n"
        "adapter: {features: 32}\n"
        "train: {batch_tokens: 128, steps: 2}\n");
  }

  void put(const std::string& name, const std::string& text) { std::ofstream(folder_ / name) << text; }

  std::string text_of(const std::string& name) {
    std::ostringstream text;
    text << std::ifstream(folder_ / name).rdbuf();
    return text.str();
  }

  Ended run(const std::string& words) {
    return run_shell(fmt::format("mpirun -n 2 {}/tadapt-dist --config {} {}", TADAPT_BINARY_DIR,
                                 (folder_ / "run.yaml").string(), words));
  }

  /// Flags of a new run from the cache of the first.
  std::string another_run() {
    return fmt::format("--run {0}/other --set cache.dir={0}/run/cache", folder_.path().string());
  }

  void expect_error(const Ended& ended, ExitCode code, const ::testing::Matcher<std::string>& message) {
    EXPECT_EQ(ended.code, code) << ended.output;
    ASSERT_THAT(ended.errors, ::testing::SizeIs(1)) << ended.output;
    EXPECT_THAT(ended.errors.front(), message);
  }

  void flip_a_byte(const fs::path& file, std::uint64_t offset) {
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekg(static_cast<std::streamoff>(offset));
    const char changed = static_cast<char>(stream.get() ^ 0x10);
    stream.seekp(static_cast<std::streamoff>(offset));
    stream.put(changed);
  }

  const fs::path toy_ = fs::path(TADAPT_SOURCE_DIR) / "data/toy";
  TemporaryDirectory folder_;
};

}  // namespace tadapt::testing
