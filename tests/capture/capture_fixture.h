// A tiny pair, a corpus of random sequences and everything else a capture needs, in one folder.
#pragma once

#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "runtime/capture/capture.h"
#include "tests/support/devices.h"
#include "tests/support/tiny_models.h"

namespace tadapt::testing {

inline const TinyModel kTarget{.max_positions = 200, .seed = 1};
inline const TinyModel kBase{.max_positions = 200, .seed = 2};

inline void write_pair(const std::filesystem::path& directory) {
  write_tiny_model(directory / "target", kTarget);
  write_tiny_model(directory / "base", kBase);
}

/// 23 sequences of 1 to 199 tokens.
inline std::vector<std::vector<std::int32_t>> random_corpus() {
  std::vector<std::vector<std::int32_t>> corpus;
  for (std::uint64_t i = 0; i < 23; ++i) {
    corpus.push_back(random_ids(1 + static_cast<std::int64_t>(i * 61 % 199), kTarget.vocabulary, i));
  }
  return corpus;
}

inline std::vector<std::int64_t> lengths_of(const std::vector<std::vector<std::int32_t>>& corpus) {
  std::vector<std::int64_t> lengths;
  for (const auto& ids : corpus) lengths.push_back(static_cast<std::int64_t>(ids.size()));
  return lengths;
}

/// What varies between the captures of a test.
struct CaptureSetup {
  DType compute = DType::kFloat32;
  CacheFormat format{
      .layers = {0, 2}, .width = 24, .row_dtype = DType::kFloat32, .chunk_bytes = 4096, .sequences_per_shard = 5};
  RowChoice rows;
  std::int64_t batch_tokens = 300;
  int threads = 1;
  Device device = Device::kCpu;
};

/// The plan of a setup over the random corpus, and its capture by one rank.
class TinyCapture {
 public:
  TinyCapture(std::filesystem::path pair, CaptureSetup setup)
      : pair_(std::move(pair)), setup_(std::move(setup)), lengths_(lengths_of(corpus_)) {
    plan_ = plan_capture({.target = load_decoder_config(files_, pair_ / "target"),
                          .lengths = lengths_,
                          .format = setup_.format,
                          .rows = setup_.rows});
  }

  const CapturePlan& plan() const { return plan_; }
  const std::vector<std::vector<std::int32_t>>& corpus() const { return corpus_; }
  CaptureIdentity identity(const std::filesystem::path& out) const { return {out, plan_.format, provenance_}; }

  /// Loads the pair and captures into `out`.
  CaptureOutcome run(FileSystem& files, Communicator& ranks, const std::filesystem::path& out) {
    Context context = context_on(setup_.device, setup_.threads);
    const Decoder pair = Decoder::load_pair(context, files, pair_ / "target", pair_ / "base", setup_.compute);
    CaptureJob job{.files = files,
                   .ranks = ranks,
                   .context = context,
                   .pair = pair,
                   .plan = plan_,
                   .directory = out,
                   .provenance = provenance_,
                   .tokens = [&](std::int64_t i) { return std::span(corpus_[static_cast<std::size_t>(i)]); },
                   .batch_tokens = setup_.batch_tokens,
                   .stop_requested = stop_requested,
                   .progress = progress};
    return capture(job);
  }
  CaptureOutcome run(const std::filesystem::path& out) {
    SelfCommunicator self;
    return run(files_, self, out);
  }

  std::function<bool()> stop_requested = [] { return false; };
  std::function<void(const CaptureProgress&)> progress = [](const CaptureProgress&) {};

 private:
  RealFileSystem files_;
  std::filesystem::path pair_;
  CaptureSetup setup_;
  std::vector<std::vector<std::int32_t>> corpus_ = random_corpus();
  std::vector<std::int64_t> lengths_;
  Provenance provenance_{{"model.base", "b"}, {"model.target", "t"}};
  CapturePlan plan_;
};

/// The bytes of every file of a folder by name.
inline std::map<std::string, std::string> folder_content(const std::filesystem::path& folder) {
  std::map<std::string, std::string> content;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::ifstream file(entry.path(), std::ios::binary);
    content[entry.path().filename().string()] = {std::istreambuf_iterator<char>(file), {}};
  }
  return content;
}

}  // namespace tadapt::testing
