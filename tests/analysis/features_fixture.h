// A small model pair with random adapters and a few conversations of the toy corpus, and whole collections over it.
#pragma once

#include <atomic>
#include <fstream>

#include "data/model_files.h"
#include "runtime/analysis/feature_run.h"
#include "runtime/export/export.h"
#include "tests/eval/random_bundle.h"
#include "tests/support/devices.h"
#include "tests/support/errors.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/thread_communicator.h"

namespace tadapt::testing {

inline constexpr std::int64_t kTestFeatures = 12;

/// Thrown where a process is killed.
struct Killed {};

class FeaturesFixture : public PerDevice {
 protected:
  void SetUp() override {
    PerDevice::SetUp();
    if (IsSkipped()) return;
    const std::filesystem::path toy = std::filesystem::path(TADAPT_SOURCE_DIR) / "data" / "toy";
    model_ = {.vocabulary = Tokenizer::load(files_, toy / "target").vocabulary_size() + 3, .seed = 2};
    write_tiny_model(folder_ / "base", model_);
    model_.seed = 1;
    write_tiny_model(folder_ / "target", model_);
    for (const char* model : {"base", "target"})
      for (const char* file : {"tokenizer.json", "tokenizer_config.json"})
        std::filesystem::copy_file(toy / "target" / file, folder_ / model / file);
    write_corpus(GetParam() == Device::kCpu ? 10 : 3);
    bundle_ = random_bundle({0, 2}, {model_.width, kTestFeatures}, 0.3f);
    bundle_.base_fingerprint = model_fingerprint(folder_ / "base");
    bundle_.target_fingerprint = model_fingerprint(folder_ / "target");
    export_adapters(files_, bundle_, folder_ / "adapters");
    options_.model = {folder_ / "base", folder_ / "target", DType::kFloat32};
    options_.train.compute = DType::kFloat32;
    options_.corpus.max_sequence_tokens = 200;
  }

  /// So many conversations that think, and one in between that does not.
  void write_corpus(int conversations) {
    std::ifstream toy(std::filesystem::path(TADAPT_SOURCE_DIR) / "data/toy/validation.jsonl");
    std::string lines;
    int line = 0;
    for (std::string text; line < conversations && std::getline(toy, text); ++line) {
      lines += text + "\n";
      if (line == 1)
        lines += R"({"conversations":[{"from":"human","value":"Hm"},{"from":"gpt","value":"Ok"}],"domain":"none"})"
                 "\n";
    }
    write_atomically(files_, folder_ / "corpus.jsonl", lines);
  }

  FeatureRequest request(const std::string& out) {
    return {.options = options_,
            .adapters = folder_ / "adapters",
            .corpus = folder_ / "corpus.jsonl",
            .out = folder_ / out,
            .records = {.seed = 5, .top = 4, .sampled = 3},
            .unit = 1};
  }

  /// One rank's part. `kill_at`: the heartbeat at which this rank dies; 0: none.
  FeatureOutcome collect_on(
      const FeatureRequest& request, Communicator& world, Context& context, int kill_at = 0,
      const std::function<bool()>& stop = [] { return false; }) {
    int heartbeats = 0;
    const RunEnvironment environment{.files = files_,
                                     .world = world,
                                     .context = context,
                                     .who = "test",
                                     .print = [&](const std::string& line) { note(line); },
                                     .stop_requested = stop,
                                     .heartbeat =
                                         [&](const std::string&) {
                                           if (++heartbeats == kill_at) throw Killed();
                                         }};
    return collect_features(request, environment);
  }
  FeatureOutcome collect(const FeatureRequest& request, int kill_at = 0) {
    SelfCommunicator self;
    Context context = context_on(GetParam(), 2);
    return collect_on(request, self, context, kill_at);
  }
  /// All ranks; the last of them dies at `kill_at`.
  void collect_on_ranks(int ranks, const FeatureRequest& request, int kill_at = 0) {
    run_ranks(ranks, [&](Communicator& world) {
      Context context = Context::cpu(1);
      collect_on(request, world, context, world.rank() == world.size() - 1 ? kill_at : 0);
    });
  }

  /// {relative path: bytes} of all files below a folder but the lock.
  std::map<std::string, std::string> files_below(const std::string& name) {
    std::map<std::string, std::string> found;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder_ / name))
      if (entry.is_regular_file() && entry.path().filename() != "features.lock")
        found[std::filesystem::relative(entry.path(), folder_ / name).string()] = read_text(files_, entry.path());
    return found;
  }
  void expect_same_files(const std::string& expected, const std::string& found) {
    const auto a = files_below(expected), b = files_below(found);
    ASSERT_FALSE(a.empty());
    for (const auto& [name, bytes] : a) {
      ASSERT_TRUE(b.contains(name)) << name;
      EXPECT_EQ(bytes == b.at(name), true) << name << " differs";
    }
    EXPECT_EQ(a.size(), b.size());
  }

  void note(const std::string& line) {
    const std::lock_guard lock(mutex_);
    said_ += line + "\n";
  }

  RealFileSystem files_;
  TemporaryDirectory folder_;
  TinyModel model_;  // the target
  AdapterBundle bundle_;
  RunOptions options_;
  std::mutex mutex_;
  std::string said_;
};

}  // namespace tadapt::testing
