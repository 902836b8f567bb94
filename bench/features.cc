// Collecting features: tokens per second beside the same adapters' plain forward over the same tokens, and beside the
// straightforward loop in Python over the same activations (bench/features_loop.py).
#include <sys/wait.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "kernels/core/memory.h"
#include "runtime/analysis/byte_codec.h"
#include "runtime/analysis/feature_sources.h"
#include "tests/eval/random_bundle.h"
#include "tests/support/temporary_directory.h"

namespace tadapt {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

struct Workload {
  const char* name;
  testing::TinyModel model;
  std::int64_t features;
  std::int64_t conversations;
};

/// The first conversations of the bundled toy corpus.
TokenDataset corpus_of(FileSystem& files, const fs::path& folder, const Tokenizer& tokenizer, std::int64_t lines) {
  const std::string text = read_text(files, fs::path(TADAPT_SOURCE_DIR) / "data/toy/train.jsonl");
  std::size_t end = 0;
  for (std::int64_t line = 0; line < lines && end != std::string::npos; ++line) end = text.find('\n', end) + 1;
  write_atomically(files, folder / "corpus.jsonl", text.substr(0, end));
  return TokenDataset::build(files, folder / "corpus.jsonl", tokenizer, {.threads = threads_per_rank(1)});
}

TokenBatch batch_of(const MarkedCorpus& corpus, std::int64_t& index, std::int64_t tokens) {
  TokenBatch batch;
  for (; index < corpus.size() && batch.tokens() < tokens; ++index) batch.append(corpus.sequence(index).ids);
  return batch;
}

/// Lowers the encoder's biases until about `l0` features a token are active.
void set_l0(Context& context, const Decoder& pair, const MarkedCorpus& corpus, AdapterBundle& bundle, double l0) {
  AdapterFeatures source(context, pair, bundle, DType::kFloat32);
  std::int64_t index = 0;
  const TokenBatch batch = batch_of(corpus, index, 1000);
  std::map<int, std::vector<float>> activations;
  source.run(batch, [&](Context& where, int layer, const Tensor& a) { activations[layer] = on_host<float>(where, a); });
  for (const AdapterBundle::Layer& layer : bundle.layers) {
    std::vector<float>& a = activations[layer.layer];
    const auto kept = static_cast<std::ptrdiff_t>(l0 * static_cast<double>(batch.tokens()));
    std::ranges::nth_element(a, a.begin() + kept, std::greater());
    for (float& bias : layer.store->master_views(0)["b_enc"].span<float>()) bias -= a[static_cast<std::size_t>(kept)];
  }
}

/// What a loop in Python gets: every pair with its place.
void write_pairs(FileSystem& files, const fs::path& path, FeatureSource& source, const MarkedCorpus& corpus,
                 std::int64_t conversations) {
  std::string bytes;
  for (std::int64_t index = 0; index < std::min(conversations, corpus.size()); ++index) {
    TokenBatch batch;
    batch.append(corpus.sequence(index).ids);
    append_bytes(bytes, static_cast<std::int32_t>(batch.tokens()));
    for (const TokenPlace& place : corpus.places(index)) append_bytes(bytes, static_cast<std::int32_t>(place.region));
    ActivePairs pairs;
    source.run(batch, [&](Context& context, int, const Tensor& activations) {
      const FeaturePairs found = pairs.gather(context, activations);
      append_bytes(bytes, static_cast<std::int32_t>(found.rows.size()));
      for (std::size_t feature = 0; feature + 1 < found.offsets.size(); ++feature)
        for (auto p = static_cast<std::size_t>(found.offsets[feature]);
             p < static_cast<std::size_t>(found.offsets[feature + 1]); ++p) {
          append_bytes(bytes, static_cast<std::int32_t>(feature));
          append_bytes(bytes, found.rows[p]);
          append_bytes(bytes, found.activations[p]);
        }
    });
  }
  write_atomically(files, path, bytes);
}

void measure(const Workload& work, double l0) {
  testing::TemporaryDirectory folder;
  RealFileSystem files;
  const Tokenizer tokenizer = Tokenizer::load(files, fs::path(TADAPT_SOURCE_DIR) / "data/toy/target");
  const TokenDataset dataset = corpus_of(files, folder.path(), tokenizer, work.conversations);
  const MarkedCorpus corpus(dataset, RegionFinder(ChatFormat::kDeepseek, tokenizer), "corpus");
  testing::TinyModel model = work.model;
  testing::write_tiny_model(folder / "target", model);
  model.seed = 2;
  testing::write_tiny_model(folder / "base", model);
  Context context = Context::cpu(threads_per_rank(1));
  const Decoder pair = Decoder::load_pair(context, files, folder / "target", folder / "base", DType::kFloat32);
  std::vector<int> layers;
  for (int layer = 0; layer < model.layers; ++layer) layers.push_back(layer);
  AdapterBundle bundle = testing::random_bundle(layers, {model.width, work.features}, 0.05f);
  set_l0(context, pair, corpus, bundle, l0);
  AdapterFeatures source(context, pair, bundle, DType::kFloat32);
  const auto tokens = static_cast<double>(corpus.totals().tokens);

  const ContrastWindows contrast(corpus, 0, RecordOptions().contrast);
  double plain = 0, collected = 0;
  std::int64_t pairs = 0;
  for (int repeat = 0; repeat < 3; ++repeat) {
    auto start = Clock::now();
    for (std::int64_t index = 0; index < corpus.size();)
      source.run(batch_of(corpus, index, 4096), [](Context&, int, const Tensor&) {});
    const double forward = seconds_since(start);
    SelfCommunicator self;
    const RunEnvironment environment{.files = files,
                                     .world = self,
                                     .context = context,
                                     .who = "bench",
                                     .print = [](const std::string&) {},
                                     .stop_requested = [] { return false; },
                                     .heartbeat = [](const std::string&) {}};
    start = Clock::now();
    const auto records = collect({.name = "features",
                                  .source = source,
                                  .corpus = corpus,
                                  .contrast = contrast,
                                  .records = {},
                                  .identity = "bench",
                                  .directory = folder / fmt::format("partial-{}", repeat)},
                                 environment);
    const double both = seconds_since(start);
    if (repeat == 0 || forward < plain) plain = forward;
    if (repeat == 0 || both < collected) collected = both;
    pairs = 0;
    for (const LayerRecords& layer : *records)
      for (std::int64_t feature = 0; feature < layer.features(); ++feature) pairs += layer.counts(feature).active;
  }
  std::printf("%-7s L0 %5.2f  forward %8.0f tokens/s  collection %8.0f tokens/s  %.2f x the time  %.2fM pairs\n",
              work.name, static_cast<double>(pairs) / tokens / model.layers, tokens / plain, tokens / collected,
              collected / plain, static_cast<double>(pairs) * 1e-6);
  std::fflush(stdout);
  write_pairs(files, folder / "pairs.bin", source, corpus, 200);
  const std::string command = fmt::format("python3 {}/bench/features_loop.py {} {}", TADAPT_SOURCE_DIR,
                                          (folder / "pairs.bin").string(), model.layers);
  if (std::system(command.c_str()) != 0) std::printf("the loop in Python failed\n");
}

}  // namespace
}  // namespace tadapt

/// `bench_features [toy|larger]`: one of them, else both.
int main(int count, char** words) {
  const tadapt::testing::TinyModel toy{
      .layers = 4, .width = 128, .mlp_width = 384, .heads = 4, .kv_heads = 2, .vocabulary = 512, .max_positions = 1024};
  const tadapt::testing::TinyModel larger{.layers = 4,
                                          .width = 512,
                                          .mlp_width = 2048,
                                          .heads = 8,
                                          .kv_heads = 2,
                                          .vocabulary = 512,
                                          .max_positions = 1024};
  std::printf("collecting features, %d threads; the loop in Python gets its activations from a file\n",
              tadapt::threads_per_rank(1));
  const std::string wanted = count > 1 ? words[1] : "";
  for (const double l0 : {1.0, 10.0}) {
    if (wanted != "larger") tadapt::measure({"toy", toy, 512, 500}, l0);
    if (wanted != "toy") tadapt::measure({"larger", larger, 4096, 50}, l0);
  }
}
