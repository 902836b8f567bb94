// Capture's tokens per second, beside the speed its matrix products reach alone on the same machine in the same run.
#include "runtime/capture/capture.h"

#include <chrono>
#include <cstdio>

#include "kernels/matmul.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/tiny_models.h"

namespace tadapt {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

struct Workload {
  const char* name;
  testing::TinyModel model;
  std::int64_t sequences;
  std::int64_t sequence_tokens;
};

/// The products of capturing one layer (the base's MLP included) on `tokens` rows; seconds of the best of three passes.
double product_seconds(Context& context, const DecoderConfig& config, DType compute, std::int64_t tokens) {
  const std::vector<std::pair<std::int64_t, std::int64_t>> shapes{
      {config.query_width(), config.width}, {config.key_width(), config.width}, {config.key_width(), config.width},
      {config.width, config.query_width()}, {config.mlp_width, config.width},   {config.mlp_width, config.width},
      {config.width, config.mlp_width},     {config.mlp_width, config.width},   {config.mlp_width, config.width},
      {config.width, config.mlp_width}};
  double total = 0;
  for (const auto& [outputs, inputs] : shapes) {
    const Buffer w = testing::random_tensor({outputs, inputs}, 0.0f, 1.0f, 1, 0);
    const Buffer x = testing::random_tensor({tokens, inputs}, 0.0f, 1.0f, 2, 0);
    const Buffer y(Device::kCpu, DType::kFloat32, {tokens, outputs});
    const PackedWeights packed = pack_weights(context, w.tensor(), Layout::kOutputInput, compute);
    double best = 0;
    for (int repeat = 0; repeat < 3; ++repeat) {
      const auto start = Clock::now();
      matmul(context, x.tensor(), packed, Tensor(), Epilogue::kNone, y.tensor());
      const double seconds = seconds_since(start);
      best = repeat == 0 ? seconds : std::min(best, seconds);
    }
    total += best;
  }
  return total;
}

void measure(const Workload& work, DType compute) {
  testing::TemporaryDirectory directory;
  testing::TinyModel base = work.model;
  base.seed = work.model.seed + 1;
  testing::write_tiny_model(directory / "target", work.model);
  testing::write_tiny_model(directory / "base", base);
  RealFileSystem files;
  SelfCommunicator self;
  Context context = Context::cpu(threads_per_rank(1));
  const Decoder pair = Decoder::load_pair(context, files, directory / "target", directory / "base", compute);
  const DecoderConfig& config = pair.config();

  CacheFormat format{.layers = {}, .width = config.width, .sequences_per_shard = 64};
  for (int layer = 0; layer < config.layers; ++layer) format.layers.push_back(layer);
  const std::vector<std::int64_t> lengths(static_cast<std::size_t>(work.sequences), work.sequence_tokens);
  const CapturePlan plan = plan_capture({.target = config, .lengths = lengths, .format = format, .rows = {}});
  const std::vector<std::int32_t> ids = testing::random_ids(work.sequence_tokens, config.vocabulary, 1);
  const CaptureJob job{.files = files,
                       .ranks = self,
                       .context = context,
                       .pair = pair,
                       .plan = plan,
                       .directory = directory / "cache",
                       .provenance = {},
                       .tokens = [&](std::int64_t) { return std::span(ids); }};
  const auto start = Clock::now();
  capture(job);
  const double seconds = seconds_since(start);

  const ForwardFlops flops = forward_flops(config);
  const double product_flops = flops.attention_per_token + 2 * flops.mlp_per_token;
  const double ceiling = static_cast<double>(job.batch_tokens) /
                         (config.layers * product_seconds(context, config, compute, job.batch_tokens));
  const double speed = static_cast<double>(plan.tokens) / seconds;
  std::printf("%-6s %-9s %9.0f tokens/s %8.1f GFLOP/s | products alone %9.0f tokens/s %8.1f GFLOP/s | %5.1f %%\n",
              work.name, name(compute), speed, plan.flops / seconds * 1e-9, ceiling,
              ceiling * product_flops * config.layers * 1e-9, 100 * speed / ceiling);
}

}  // namespace
}  // namespace tadapt

int main() {
  using tadapt::DType;
  const tadapt::testing::TinyModel toy{
      .layers = 4, .width = 128, .mlp_width = 384, .heads = 4, .kv_heads = 2, .vocabulary = 512, .max_positions = 1024};
  const tadapt::testing::TinyModel larger{.layers = 4,
                                          .width = 1024,
                                          .mlp_width = 4096,
                                          .heads = 16,
                                          .kv_heads = 4,
                                          .vocabulary = 2048,
                                          .max_positions = 1024};
  std::printf("capture, written to disk, %d threads\n", tadapt::threads_per_rank(1));
  for (const DType compute : {DType::kFloat32, DType::kBFloat16}) {
    tadapt::measure({"toy", toy, 1000, 64}, compute);
    tadapt::measure({"larger", larger, 16, 512}, compute);
  }
}
