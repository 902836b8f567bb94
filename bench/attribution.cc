// One attribution graph of a random pair with adapters: seconds, peak memory, and what the 7B shape would need.
//   bench_attribution toy|wide|quarter [DIRECTORY [NODES [TOKENS [DENSITY]]]]
// With a DIRECTORY the models, adapters, tokens and the graph are written there: attribution_torch.py is the other end.
// DENSITY: share of the features that are active. Prints a line of JSON.

#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>

#include "bench/random_pair.h"
#include "kernels/core/memory.h"
#include "kernels/core/random.h"
#include "kernels/instruction_set.h"
#include "kernels/uniform.h"
#include "runtime/adapter/break_even.h"
#include "runtime/analysis/attribution_graph.h"
#include "runtime/analysis/prune_graph.h"
#include "runtime/model/hybrid_weights.h"
#include "runtime/plan/estimate.h"
#include "runtime/plan/step_timer.h"

namespace tadapt {
namespace {

struct BenchShape {
  std::int64_t width, mlp_width, heads, kv_heads, vocabulary, features;
  int layers;
};
/// The bundled pair's sizes; the 7B model's divided by 8, and by 4, with a quarter of its layers, V by 32; and the 7B
/// model's.
constexpr BenchShape kToy{128, 384, 4, 2, 512, 512, 4};
constexpr BenchShape kWide{448, 2368, 7, 1, 4752, 1024, 7};
constexpr BenchShape kQuarter{896, 4736, 14, 2, 4752, 2048, 7};
constexpr BenchShape kSevenB{3584, 18944, 28, 4, 152064, 8192, 28};

const std::map<std::string, BenchShape> kShapes = {{"toy", kToy}, {"wide", kWide}, {"quarter", kQuarter}};

DecoderConfig config_of(const BenchShape& shape) {
  const nlohmann::json config = {{"architectures", {"Qwen2ForCausalLM"}},
                                 {"model_type", "qwen2"},
                                 {"hidden_act", "silu"},
                                 {"hidden_size", shape.width},
                                 {"intermediate_size", shape.mlp_width},
                                 {"num_hidden_layers", shape.layers},
                                 {"num_attention_heads", shape.heads},
                                 {"num_key_value_heads", shape.kv_heads},
                                 {"vocab_size", shape.vocabulary},
                                 {"max_position_embeddings", 2048},
                                 {"tie_word_embeddings", false},
                                 {"rms_norm_eps", 1e-6},
                                 {"rope_theta", 10000.0},
                                 {"torch_dtype", "bfloat16"}};
  return parse_decoder_config(config.dump(), "config.json");
}

AdapterBundle random_adapters(Context& context, const BenchShape& shape, double density) {
  AdapterBundle bundle{
      .type = "transcoder", .layers = {}, .source = {}, .base_fingerprint = {}, .target_fingerprint = {}};
  for (int layer = 0; layer < shape.layers; ++layer) {
    bundle.layers.push_back(zero_layer(bundle.type, layer, {.model_width = shape.width, .features = shape.features}));
    const ParameterTensors masters = bundle.layers.back().store->master_views(0);
    make_adapter(bundle.type, bundle.layers.back().shape, {.dtype = DType::kFloat32})
        ->initialise(context, masters, 1, layer);
    uniform(context, RandomStream(5, RandomPurpose::kTest, 0, static_cast<std::uint64_t>(layer)), 0.05f,
            masters["W_dec"].reshaped({masters["W_dec"].elements()}));
    // Encoder rows within ±1/√D on an input of mean square 1: the pre-activations' spread is 1/√3.
    const float bias = static_cast<float>(-upper_quantile(density) / std::sqrt(3.0));
    for (float& number : masters["b_enc"].span<float>()) number = bias;
  }
  return bundle;
}

void write_adapters(const AdapterBundle& bundle, const std::filesystem::path& path) {
  NamedTensors numbers;
  for (const AdapterBundle::Layer& layer : bundle.layers) {
    const ParameterTensors masters = layer.store->master_views(0);
    for (const auto& [name, tensor] : masters.entries()) numbers[fmt::format("{}.{}", layer.layer, name)] = tensor;
  }
  RealFileSystem files;
  write_safetensors(files, path, numbers);
}

nlohmann::json to_json(const AttributionGraph& graph) {
  nlohmann::json nodes = nlohmann::json::array();
  for (const GraphNode& node : graph.nodes) nodes.push_back({node.layer, node.position, node.id, node.probability});
  return {{"nodes", nodes},           {"features", graph.features}, {"offsets", graph.offsets},
          {"sources", graph.sources}, {"weights", graph.weights},   {"influence", node_influence(graph)}};
}

/// What a prompt of 1,100 tokens at the 7B shape needs.
void tell_seven_b(const GrowthOptions& options) {
  constexpr std::int64_t kTokens = 1100;
  const DecoderConfig config = config_of(kSevenB);
  const std::vector<AdapterShape> adapters(static_cast<std::size_t>(kSevenB.layers), {kSevenB.width, kSevenB.features});
  for (const Device device : {Device::kCpu, Device::kCuda}) {
    const std::int64_t models = AttributionModel::bytes(config, adapters, device);
    const std::int64_t record = PromptRecord::bytes(config, kTokens, kSevenB.features);
    const std::int64_t maps = MlpMaps::bytes(config, kTokens, options.most_map_bytes);
    const std::int64_t batch = AttributionPass::bytes(config, options.batch, kTokens);
    fmt::print("7B shape, {} tokens, on a {}: {} (models {}, one forward {}, maps {}, a batch of {} {})\n", kTokens,
               name(device), readable_bytes(models + record + maps + batch), readable_bytes(models),
               readable_bytes(record), readable_bytes(maps), options.batch, readable_bytes(batch));
  }
  const double row = static_cast<double>(6 * config.width * config.mlp_width +
                                         2 * config.width * (config.query_width() + config.key_width()));
  fmt::print("and {:.3g} FLOP a target from the last layer at the last position\n",
             row * static_cast<double>(kTokens) * static_cast<double>(config.layers));
}

void run(std::span<const std::string> words) {
  const auto word = [&](std::size_t at, const char* otherwise) { return words.size() > at ? words[at] : otherwise; };
  const BenchShape& shape = kShapes.at(words[0]);
  const GrowthOptions options{.most_features = std::stol(word(2, "300"))};
  const std::int64_t tokens = std::stol(word(3, "200"));
  Context context = Context::cpu(threads_per_rank(1));
  const DecoderConfig config = config_of(shape);
  KeptWeights target(1), base(2);
  std::vector<int> layers(static_cast<std::size_t>(shape.layers));
  std::iota(layers.begin(), layers.end(), 0);
  Decoder hybrid = Decoder::make(context, config, HybridWeights({config, target}, {config, base}, layers),
                                 {DType::kFloat32, Directions::kBoth});
  AdapterBundle bundle = random_adapters(context, shape, std::stod(word(4, "0.01")));
  std::vector<std::int32_t> ids(static_cast<std::size_t>(tokens));
  const RandomStream random(3, RandomPurpose::kTest, 0, 0);
  for (std::size_t i = 0; i < ids.size(); ++i)
    ids[i] = static_cast<std::int32_t>(
        random.below(static_cast<std::uint32_t>(i), static_cast<std::uint64_t>(shape.vocabulary)));
  const std::filesystem::path directory = word(1, "-");
  if (directory != "-") {
    std::filesystem::create_directories(directory);
    target.write(directory / "target.safetensors");
    base.write(directory / "base.safetensors");
    write_adapters(bundle, directory / "adapters.safetensors");
  }
  target.forget();
  base.forget();
  AttributionModel model(context, std::move(hybrid), std::move(bundle));

  forget_peak();
  const double resident = peak_mb();
  PromptMemory memory(Device::kCpu);
  const auto start = std::chrono::steady_clock::now();
  const std::clock_t cpu_start = std::clock();
  const PromptRecord record(context, model, memory, ids);
  const int mapped = MlpMaps::layers_that_pay(config, record, options.most_features, options.most_map_bytes);
  const MlpMaps maps(context, model, record, mapped, [] {});
  AttributionPass pass(context, model, memory, record, &maps);
  const AttributionGraph graph = grow_graph(pass, options, std::int64_t{1} << 36, [](std::int64_t) {});
  const PrunedGraph pruned = prune_graph(graph, {});
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  double residual = 0.0;
  for (const Balance& balance : graph.balances) residual = std::max(residual, std::abs(balance.residual));
  fmt::print("{}\n", nlohmann::json{{"seconds", seconds},
                                    {"cpu_seconds", static_cast<double>(std::clock() - cpu_start) / CLOCKS_PER_SEC},
                                    {"threads", context.threads()},
                                    {"instructions", name(effective_instruction_set())},
                                    {"tokens", tokens},
                                    {"active_features", graph.active_features},
                                    {"nodes", graph.features},
                                    {"edges", graph.weights.size()},
                                    {"mapped_layers", mapped},
                                    {"kept_edges", std::ranges::count(pruned.edges, true)},
                                    {"largest_residual", residual},
                                    {"peak_mb", peak_mb()},
                                    {"resident_before_mb", resident}}
                         .dump());
  if (directory == "-") return tell_seven_b(options);
  std::ofstream(directory / "case.json") << nlohmann::json{{"ids", ids},
                                                           {"layers", shape.layers},
                                                           {"heads", shape.heads},
                                                           {"kv_heads", shape.kv_heads},
                                                           {"batch", options.batch},
                                                           {"batches_a_ranking", options.batches_a_ranking},
                                                           {"most_features", options.most_features},
                                                           {"graph", to_json(graph)}};
}

}  // namespace
}  // namespace tadapt

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  if (words.empty() || !tadapt::kShapes.contains(words[0])) {
    std::fprintf(stderr, "bench_attribution toy|wide|quarter [DIRECTORY [NODES [TOKENS [DENSITY]]]]\n");
    return 64;
  }
  tadapt::run(words);
  return 0;
}
