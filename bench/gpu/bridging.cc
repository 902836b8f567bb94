// A whole optimiser step of bridging training on a device, at a published model's shape with random weights: value and
// gradients of one sequence, clip by one norm, AdamW, packing. JSON lines, for bench/gpu/run.
//   bench_gpu_bridging 1.5B|7B|small TOKENS [--device cuda|cpu] [--l0 N]
// A layer pass, forwards or backwards, counts as the operations of a forward pass; adapters are left out of them.
#include <chrono>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "kernels/core/memory.h"
#include "kernels/uniform.h"
#include "runtime/adapter/break_even.h"
#include "runtime/loss/bridging_pass.h"
#include "runtime/optim/adamw_state.h"
#include "runtime/plan/step_timer.h"
#include "tests/support/temporary_directory.h"

namespace tadapt {
namespace {

struct Shape {
  const char* name;
  std::int64_t width, mlp_width, heads, kv_heads, vocabulary, features;
  int layers;
};
constexpr Shape kShapes[] = {{"1.5B", 1536, 8960, 12, 2, 151936, 8192, 28},
                             {"7B", 3584, 18944, 28, 4, 152064, 8192, 28},
                             {"small", 64, 96, 4, 2, 300, 128, 3}};

DecoderConfig config_of(const Shape& shape, std::int64_t tokens) {
  const nlohmann::json config = {{"model_type", "qwen2"},
                                 {"hidden_size", shape.width},
                                 {"intermediate_size", shape.mlp_width},
                                 {"num_hidden_layers", shape.layers},
                                 {"num_attention_heads", shape.heads},
                                 {"num_key_value_heads", shape.kv_heads},
                                 {"vocab_size", shape.vocabulary},
                                 {"rms_norm_eps", 1e-6},
                                 {"rope_theta", 1e4},
                                 {"max_position_embeddings", tokens},
                                 {"tie_word_embeddings", false},
                                 {"hidden_act", "silu"},
                                 {"architectures", {"Qwen2ForCausalLM"}}};
  testing::TemporaryDirectory folder;
  RealFileSystem files;
  write_atomically(files, folder / "config.json", config.dump());
  return load_decoder_config(files, folder.path());
}

class Training {
 public:
  Training(Context& context, const Shape& shape, std::int64_t tokens, double l0)
      : context_(context),
        config_(config_of(shape, tokens)),
        pair_(Decoder::make_pair(context, config_, RandomWeights(1), RandomWeights(2),
                                 {DType::kBFloat16, Directions::kBoth})) {
    const AdapterShape adapter{shape.width, shape.features};
    std::vector<ParameterGroupSpec> specs;
    for (int layer = 0; layer < shape.layers; ++layer) {
      adapters_.push_back(make_adapter("transcoder", adapter,
                                       {.dtype = DType::kBFloat16,
                                        .sparse_below = break_even(context.device(), adapter, DType::kBFloat16),
                                        .gradients = AdapterGradients::kInputs}));
      specs.push_back(adapters_.back()->parameters(fmt::format("layer-{:03}", layer)));
    }
    store_.emplace(context.device(), specs);
    optimiser_.emplace(context.device(), *store_);
    std::vector<TapedAdapter> taped;
    for (std::size_t layer = 0; layer < adapters_.size(); ++layer) {
      initialise(layer, l0 / static_cast<double>(shape.features));
      taped.push_back({.layer = static_cast<int>(layer),
                       .adapter = adapters_[layer].get(),
                       .masters = store_->master_views(layer),
                       .group = &store_->group(layer)});
    }
    tape_.emplace(context.device(), std::move(taped),
                  AdapterTape::Limits{.tokens = tokens, .branches = 2, .memory = FeatureMemory::kRecomputed});
    std::vector<std::int32_t> ids;
    for (std::int64_t i = 0; i < tokens; ++i) ids.push_back(static_cast<std::int32_t>(i * 7919 % shape.vocabulary));
    batch_.append(ids);
    pass_.emplace(context, models_, BridgingWeights{.sparsity = 1e-3},
                  BridgingMemory{.leaf_tokens = tokens,
                                 .recording = Recording::kAllButHidden,
                                 .logits_budget_bytes = std::int64_t{1} << 30});
  }

  const DecoderConfig& config() const { return config_; }
  std::int64_t layer_passes() const { return pass_->layer_passes(); }

  void step(int cutoff) {
    const std::vector<int> cutoffs{cutoff};
    pass_->value_and_gradient({.batch = batch_,
                               .cutoffs = cutoffs,
                               .whole = counts_of(batch_),
                               .sparsity = 1e-3,
                               .adapters = *tape_,
                               .gradients = {.slot = [&](std::size_t layer) { return store_->gradient(layer); },
                                             .filled = [](std::size_t) {}}});
    double square_norm = 0.0;
    for (std::size_t layer = 0; layer < adapters_.size(); ++layer) {
      optimiser_->measure(context_, *store_, layer);
      square_norm += optimiser_->square_norm(context_, layer);
    }
    const AdamWSettings settings{.clip_norm = 1.0};
    for (std::size_t layer = 0; layer < adapters_.size(); ++layer) {
      optimiser_->update(
          context_, *store_, layer, settings,
          {.learning_rate = 1e-6, .step = steps_, .gradient_scale = clip_scale(settings, std::sqrt(square_norm))});
      adapters_[layer]->prepare(context_, store_->master_views(layer));
    }
    ++steps_;
    synchronize(context_);
  }

  double l0() const {
    double sum = 0.0;
    for (std::size_t layer = 0; layer < adapters_.size(); ++layer) {
      const Tensor counted = statistic_views(store_->group(layer), store_->gradient(layer))[kActiveCounts];
      for (const float count : on_host<float>(context_, counted)) sum += count;
    }
    return sum / static_cast<double>(adapters_.size()) / static_cast<double>(batch_.tokens());
  }

 private:
  void initialise(std::size_t layer, double density) {
    const ParameterTensors masters = store_->master_views(layer);
    adapters_[layer]->initialise(context_, masters, 1, static_cast<int>(layer));
    uniform(context_, RandomStream(5, RandomPurpose::kTest, 0, layer), 0.02f,
            masters["W_dec"].reshaped({masters["W_dec"].elements()}));
    // Encoder rows within ±1/√D on an input of mean square 1: the preactivations' spread is 1/√3.
    std::vector<float> bias(static_cast<std::size_t>(masters["b_enc"].elements()),
                            static_cast<float>(-upper_quantile(density) / std::sqrt(3.0)));
    copy(context_, Tensor::of(std::span(bias), masters["b_enc"].shape()), masters["b_enc"]);
    synchronize(context_);
    adapters_[layer]->prepare(context_, masters);
  }

  Context& context_;
  DecoderConfig config_;
  Decoder pair_;
  BridgingModels models_{pair_, nullptr};
  std::vector<std::unique_ptr<Adapter>> adapters_;
  std::optional<ParameterStore> store_;
  std::optional<AdamWState> optimiser_;
  std::optional<AdapterTape> tape_;
  std::optional<BridgingPass> pass_;
  TokenBatch batch_;
  std::int64_t steps_ = 0;
};

void measure(Context& context, const Shape& shape, std::int64_t tokens, double l0) {
  constexpr int kRuns = 3;
  Training training(context, shape, tokens, l0);
  const ForwardFlops flops = forward_flops(training.config());
  const double layer = flops.attention_per_token + flops.mlp_per_token +
                       flops.attention_per_context * static_cast<double>(tokens + 1) / 2;
  for (const int cutoff : {shape.layers / 4, shape.layers / 2, 3 * shape.layers / 4}) {
    double best = 1e30;
    std::int64_t passes = 0;
    for (int run = 0; run <= kRuns; ++run) {  // the first one warms up
      const std::int64_t before = training.layer_passes();
      const auto start = std::chrono::steady_clock::now();
      training.step(cutoff);
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      passes = training.layer_passes() - before;
      if (run > 0) best = std::min(best, seconds);
    }
    // Heads: the target's twice, then the adapter model's and two bridges', forwards and back.
    const double work =
        static_cast<double>(tokens) * (static_cast<double>(passes) * layer + 8.0 * flops.head_per_token);
    const DeviceMemory memory = context.device() == Device::kCpu ? DeviceMemory{} : device_memory(context.device());
    std::printf("%s\n", nlohmann::json{{"section", "bridging"},
                                       {"what", fmt::format("{}, {} tokens, cutoff {}", shape.name, tokens, cutoff)},
                                       {"value", static_cast<double>(tokens) / best},
                                       {"unit", "tokens/s"},
                                       {"ms", 1e3 * best},
                                       {"layer_passes", passes},
                                       {"l0", training.l0()},
                                       {"tflops", work / best * 1e-12},
                                       {"used_gb", static_cast<double>(memory.total - memory.free) * 1e-9}}
                            .dump()
                            .c_str());
    std::fflush(stdout);
  }
}

int run(std::span<const std::string> words) {
  Device device = Device::kCuda;
  double l0 = 8.0;
  for (std::size_t i = 2; i + 1 < words.size(); i += 2) {
    if (words[i] == "--device") device = words[i + 1] == "cpu" ? Device::kCpu : Device::kCuda;
    if (words[i] == "--l0") l0 = std::stod(words[i + 1]);
  }
  const auto shape = std::ranges::find(kShapes, words[0], [](const Shape& one) { return std::string(one.name); });
  if (shape == std::end(kShapes)) throw ConfigError("no shape {}; there are 1.5B, 7B and small", words[0]);
  Context context = device == Device::kCpu ? Context::cpu(threads_per_rank(1)) : Context::cuda(0);
  measure(context, *shape, std::stoll(words[1]), l0);
  return 0;
}

}  // namespace
}  // namespace tadapt

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  if (words.size() < 2) {
    std::fprintf(stderr, "bench_gpu_bridging 1.5B|7B|small TOKENS [--device cuda|cpu] [--l0 N]\n");
    return 78;
  }
  try {
    return tadapt::run(words);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_gpu_bridging: %s\n", error.what());
    return 1;
  }
}
