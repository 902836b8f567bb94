// A whole optimiser step of bridging training on a random pair: value and gradients, global clip, AdamW, repacking.
//   bench_bridging_step toy|wide [DIRECTORY [DENSITY [LEAVES]]]
// With a DIRECTORY its models, adapters and tokens are written there, and every cutoff read from standard input is one
// step, answered by a line of JSON: bridging_step_torch.py is the other end. Without, or with -, it measures itself.
// DENSITY: share of the features active at first; LEAVES: parts of the batch whose gradients are added up.

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <numeric>

#include "bench/random_pair.h"
#include "data/safetensors.h"
#include "kernels/core/memory.h"
#include "kernels/core/random.h"
#include "kernels/instruction_set.h"
#include "kernels/optim.h"
#include "kernels/pointwise.h"
#include "kernels/uniform.h"
#include "runtime/adapter/break_even.h"
#include "runtime/loss/bridging_pass.h"
#include "runtime/optim/adamw_state.h"
#include "runtime/plan/step_timer.h"

namespace tadapt {
namespace {

constexpr double kLearningRate = 1e-4, kClipNorm = 1.0, kSparsity = 1e-3;
constexpr int kRounds = 5;

struct BenchShape {
  std::int64_t width, mlp_width, heads, kv_heads, vocabulary, features;
  int layers, sequences;
  std::int64_t shortest, longest;  ///< tokens of a sequence
};
/// The bundled pair's sizes, and the 7B model's divided by 8 with a quarter of its layers (so that the head's share of
/// the work stays, V is divided by 32).
constexpr BenchShape kToy{128, 384, 4, 2, 512, 512, 4, 24, 60, 110};
constexpr BenchShape kWide{448, 2368, 7, 1, 4752, 1024, 7, 1, 768, 768};

nlohmann::json config_of(const BenchShape& shape) {
  return {{"architectures", {"Qwen2ForCausalLM"}},
          {"model_type", "qwen2"},
          {"hidden_act", "silu"},
          {"hidden_size", shape.width},
          {"intermediate_size", shape.mlp_width},
          {"num_hidden_layers", shape.layers},
          {"num_attention_heads", shape.heads},
          {"num_key_value_heads", shape.kv_heads},
          {"vocab_size", shape.vocabulary},
          {"max_position_embeddings", 1024},
          {"tie_word_embeddings", false},
          {"rms_norm_eps", 1e-6},
          {"rope_theta", 10000.0},
          {"torch_dtype", "bfloat16"}};
}

TokenBatch random_batch(const BenchShape& shape) {
  const RandomStream random(3, RandomPurpose::kTest, 0, 0);
  std::uint32_t draw = 0;
  const auto below = [&](std::int64_t n) { return random.below(draw++, static_cast<std::uint64_t>(n)); };
  TokenBatch batch;
  for (int sequence = 0; sequence < shape.sequences; ++sequence) {
    std::vector<std::int32_t> ids(static_cast<std::size_t>(
        shape.shortest + static_cast<std::int64_t>(below(shape.longest - shape.shortest + 1))));
    for (std::int32_t& id : ids) id = static_cast<std::int32_t>(below(shape.vocabulary));
    batch.append(ids);
  }
  return batch;
}

/// `count` parts of whole sequences, as equal in number as they go.
std::vector<TokenBatch> cut(const TokenBatch& batch, int count) {
  std::vector<TokenBatch> leaves;
  for (int leaf = 0; leaf < count; ++leaf) {
    TokenBatch part;
    for (int s = leaf * batch.sequences() / count; s < (leaf + 1) * batch.sequences() / count; ++s) {
      const auto begin = static_cast<std::size_t>(batch.offsets[static_cast<std::size_t>(s)]);
      const auto end = static_cast<std::size_t>(batch.offsets[static_cast<std::size_t>(s) + 1]);
      part.append(std::span(batch.ids).subspan(begin, end - begin));
    }
    leaves.push_back(std::move(part));
  }
  return leaves;
}

/// The pair, adapters on all layers, their optimiser and a batch.
class BridgingTraining {
 public:
  BridgingTraining(Context& context, const std::filesystem::path& directory, const BenchShape& shape, double density,
                   int leaves)
      : context_(context),
        pair_(Decoder::make_pair(context, load_decoder_config(files_, directory), target_, base_,
                                 {DType::kFloat32, Directions::kBoth})),
        batch_(random_batch(shape)),
        leaves_(cut(batch_, leaves)) {
    const AdapterShape adapter{shape.width, shape.features};
    std::vector<ParameterGroupSpec> specs;
    for (int layer = 0; layer < shape.layers; ++layer) {
      adapters_.push_back(make_adapter("transcoder", adapter,
                                       {.dtype = DType::kFloat32,
                                        .sparse_below = break_even(Device::kCpu, adapter, DType::kFloat32),
                                        .gradients = AdapterGradients::kInputs}));
      specs.push_back(adapters_.back()->parameters(fmt::format("layer-{:03}", layer)));
    }
    store_.emplace(Device::kCpu, specs);
    optimiser_.emplace(Device::kCpu, *store_);
    for (std::size_t layer = 0; layer < adapters_.size(); ++layer) initialise(layer, density);
    std::int64_t longest = 0;
    for (const TokenBatch& leaf : leaves_) longest = std::max(longest, leaf.tokens());
    make_tape(longest);
    pass_.emplace(context, models_, BridgingWeights{.sparsity = kSparsity}, BridgingMemory{.leaf_tokens = longest});
    if (leaves > 1) leaf_gradient_ = Buffer(Device::kCpu, DType::kFloat32, {store_->gradient(0).size(0)});
  }

  const TokenBatch& batch() const { return batch_; }
  int layers() const { return static_cast<int>(adapters_.size()); }

  void write(const std::filesystem::path& directory) const {
    target_.write(directory / "target.safetensors");
    base_.write(directory / "base.safetensors");
    NamedTensors numbers;
    for (std::size_t layer = 0; layer < adapters_.size(); ++layer) {
      const ParameterTensors masters = store_->master_views(layer);
      for (const auto& [name, tensor] : masters.entries()) numbers[fmt::format("{}.{}", layer, name)] = tensor;
    }
    RealFileSystem files;
    write_safetensors(files, directory / "adapters.safetensors", numbers);
    std::ofstream(directory / "case.json") << nlohmann::json{{"ids", batch_.ids},
                                                             {"offsets", batch_.offsets},
                                                             {"learning_rate", kLearningRate},
                                                             {"clip_norm", kClipNorm},
                                                             {"sparsity", kSparsity}};
  }
  void forget_files() {
    target_.forget();
    base_.forget();
  }

  nlohmann::json step(int cutoff) {
    const auto start = std::chrono::steady_clock::now();
    const std::clock_t cpu_start = std::clock();
    const std::int64_t passes = pass_->layer_passes();
    const BatchCounts whole = counts_of(batch_);
    BridgingValue value;
    value.weighted_activations.assign(adapters_.size(), 0.0);
    for (std::size_t leaf = 0; leaf < leaves_.size(); ++leaf) add(value, gradients(leaf, cutoff, whole));
    const double norm = update();
    const double ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
    const auto labels = static_cast<double>(whole.labels);
    const double sparsity = std::accumulate(value.weighted_activations.begin(), value.weighted_activations.end(), 0.0);
    return {{"cutoff", cutoff},
            {"ms", ms},
            {"cpu_ms", 1e3 * static_cast<double>(std::clock() - cpu_start) / CLOCKS_PER_SEC},
            {"layer_passes", (pass_->layer_passes() - passes) / static_cast<std::int64_t>(leaves_.size())},
            {"kl_adapter", value.kl_adapter / labels},
            {"kl_a2r", value.kl_a2r / labels},
            {"kl_r2a", value.kl_r2a / labels},
            {"nmse", std::accumulate(value.residual_nmse.begin(), value.residual_nmse.end(), 0.0) /
                         static_cast<double>(whole.sequences)},
            {"sparsity", sparsity / static_cast<double>(whole.tokens)},
            {"gradient_norm", norm},
            {"l0", active() / static_cast<double>(whole.tokens)},
            {"peak_mb", peak_mb()}};
  }

 private:
  void initialise(std::size_t layer, double density) {
    const ParameterTensors masters = store_->master_views(layer);
    adapters_[layer]->initialise(context_, masters, 1, static_cast<int>(layer));
    uniform(context_, RandomStream(5, RandomPurpose::kTest, 0, layer), 0.02f,
            masters["W_dec"].reshaped({masters["W_dec"].elements()}));
    // Encoder rows within ±1/√D on an input of mean square 1: the preactivations' spread is 1/√3.
    const float bias = static_cast<float>(-upper_quantile(density) / std::sqrt(3.0));
    for (float& number : masters["b_enc"].span<float>()) number = bias;
    adapters_[layer]->prepare(context_, masters);
  }

  void make_tape(std::int64_t leaf_tokens) {
    std::vector<TapedAdapter> taped;
    for (std::size_t layer = 0; layer < adapters_.size(); ++layer)
      taped.push_back({.layer = static_cast<int>(layer),
                       .adapter = adapters_[layer].get(),
                       .masters = store_->master_views(layer),
                       .group = &store_->group(layer)});
    tape_.emplace(Device::kCpu, std::move(taped), AdapterTape::Limits{.tokens = leaf_tokens, .branches = 2});
  }

  BridgingValue gradients(std::size_t leaf, int cutoff, const BatchCounts& whole) {
    const std::vector<int> cutoffs{cutoff};
    const auto slot = [&](std::size_t layer) { return leaf == 0 ? store_->gradient(layer) : leaf_gradient_.tensor(); };
    const auto filled = [&](std::size_t layer) {
      if (leaf > 0) add_to(context_, leaf_gradient_.tensor(), store_->gradient(layer));
    };
    return pass_->value_and_gradient({.batch = leaves_[leaf],
                                      .cutoffs = cutoffs,
                                      .whole = whole,
                                      .sparsity = kSparsity,
                                      .adapters = *tape_,
                                      .gradients = {.slot = slot, .filled = filled}});
  }

  static void add(BridgingValue& sum, const BridgingValue& one) {
    sum.kl_adapter += one.kl_adapter;
    sum.kl_a2r += one.kl_a2r;
    sum.kl_r2a += one.kl_r2a;
    sum.residual_nmse.resize(one.residual_nmse.size(), 0.0);
    for (std::size_t state = 0; state < one.residual_nmse.size(); ++state)
      sum.residual_nmse[state] += one.residual_nmse[state];
    for (std::size_t i = 0; i < sum.weighted_activations.size(); ++i)
      sum.weighted_activations[i] += one.weighted_activations[i];
  }

  /// The norm before clipping.
  double update() {
    double square_norm = 0.0;
    for (std::size_t layer = 0; layer < adapters_.size(); ++layer) {
      optimiser_->measure(context_, *store_, layer);
      for (const double sum : on_host<double>(context_, optimiser_->square_sums(layer))) square_norm += sum;
    }
    const double norm = std::sqrt(square_norm);
    ++steps_;
    for (std::size_t layer = 0; layer < adapters_.size(); ++layer) {
      adamw(
          context_,
          {.master = store_->master(layer),
           .first_moment = optimiser_->first_moment(layer),
           .second_moment = optimiser_->second_moment(layer),
           .gradient = store_->gradient(layer).rows(0, store_->group(layer).trainable_elements),
           .working = Tensor()},
          {.learning_rate = kLearningRate, .step = steps_, .gradient_scale = std::min(1.0, kClipNorm / (norm + 1e-6))});
      adapters_[layer]->prepare(context_, store_->master_views(layer));
    }
    return norm;
  }

  /// Active features of all tokens, mean over the layers.
  double active() const {
    double sum = 0.0;
    for (std::size_t layer = 0; layer < adapters_.size(); ++layer)
      for (const float count :
           statistic_views(store_->group(layer), store_->gradient(layer))[kActiveCounts].span<float>())
        sum += static_cast<double>(count);
    return sum / static_cast<double>(adapters_.size());
  }

  Context& context_;
  RealFileSystem files_;
  KeptWeights target_{1}, base_{2};
  Decoder pair_;
  BridgingModels models_{pair_, nullptr};
  TokenBatch batch_;
  std::vector<TokenBatch> leaves_;
  std::vector<std::unique_ptr<Adapter>> adapters_;
  std::optional<ParameterStore> store_;
  std::optional<AdamWState> optimiser_;
  std::optional<AdapterTape> tape_;
  std::optional<BridgingPass> pass_;
  Buffer leaf_gradient_;
  std::int64_t steps_ = 0;
};

/// Every cutoff once a round; the shortest time of each.
void measure(BridgingTraining& training) {
  std::vector<double> shortest(static_cast<std::size_t>(training.layers()) + 1, 1e30);
  for (int round = 0; round <= kRounds; ++round) {
    for (int k = 0; k <= training.layers(); ++k) {
      const nlohmann::json step = training.step(k);
      double& best = shortest[static_cast<std::size_t>(k)];
      if (round > 0) best = std::min(best, step.at("ms").get<double>());
      if (round == kRounds) fmt::print("{:8.1f} ms  {}\n", best, step.dump());
    }
  }
  const double mean = std::accumulate(shortest.begin(), shortest.end(), 0.0) / static_cast<double>(shortest.size());
  fmt::print("{:.1f} ms a step, {:.0f} tokens/s\n", mean, 1e3 * static_cast<double>(training.batch().tokens()) / mean);
}

void answer(BridgingTraining& training) {
  for (std::string line; std::getline(std::cin, line);) std::cout << training.step(std::stoi(line)).dump() << std::endl;
}

void run(std::span<const std::string> words) {
  Context context = Context::cpu(threads_per_rank(1));
  const BenchShape& shape = words[0] == "wide" ? kWide : kToy;
  const bool alone = words.size() < 2 || words[1] == "-";
  const std::filesystem::path directory =
      alone ? std::filesystem::temp_directory_path() / fmt::format("bridging-step-{}", ::getpid())
            : std::filesystem::path(words[1]);
  std::filesystem::create_directories(directory);
  std::ofstream(directory / "config.json") << config_of(shape).dump(1) << '\n';
  BridgingTraining training(context, directory, shape, words.size() > 2 ? std::stod(words[2]) : 0.5,
                            words.size() > 3 ? std::stoi(words[3]) : 1);
  if (alone)
    std::filesystem::remove_all(directory);
  else
    training.write(directory);
  training.forget_files();
  forget_peak();
  fmt::print("{}\n", nlohmann::json{{"threads", context.threads()},
                                    {"instructions", name(effective_instruction_set())},
                                    {"tokens", training.batch().tokens()},
                                    {"sequences", training.batch().sequences()},
                                    {"resident_mb", peak_mb()}}
                         .dump());
  std::fflush(stdout);
  alone ? measure(training) : answer(training);
}

}  // namespace
}  // namespace tadapt

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  if (words.empty() || (words[0] != "toy" && words[0] != "wide")) {
    std::fprintf(stderr, "bench_bridging_step toy|wide [DIRECTORY [DENSITY [LEAVES]]]\n");
    return 64;
  }
  tadapt::run(words);
  return 0;
}
