#include "runtime/analysis/attribution_run.h"

#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "data/json.h"
#include "data/model_files.h"
#include "kernels/core/host_memory.h"
#include "runtime/analysis/attribution_prompts.h"
#include "runtime/analysis/graph_json.h"
#include "runtime/analysis/graph_page.h"
#include "runtime/analysis/token_text.h"
#include "runtime/bundle/feature_set.h"
#include "runtime/eval/evaluation.h"
#include "runtime/eval/rounds.h"
#include "runtime/model/hybrid_weights.h"
#include "runtime/plan/estimate.h"
#include "runtime/train/agreement.h"
#include "runtime/train/device_choice.h"

namespace tadapt {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

/// Of models and adapters.
std::string identity_of(const RunOptions& options, const std::string& adapters) {
  const std::string text =
      fmt::format("{} {} {}", model_fingerprint(options.model.target), model_fingerprint(options.model.base), adapters);
  return fmt::format("{:016x}", XXH3_64bits(text.data(), text.size()));
}

/// What files depend on, but for the prompt.
std::string job_of(const AttributionRequest& request, const std::string& identity) {
  const GrowthOptions& growth = request.growth;
  const std::string text =
      fmt::format("{} {} {} {} {} {} {} {} {} {}", identity, growth.logits.most, growth.logits.mass,
                  growth.most_features, growth.batch, growth.batches_a_ranking, growth.most_map_bytes,
                  request.pruning.nodes, request.pruning.edges, request.feature_url);
  return fmt::format("{:016x}", XXH3_64bits(text.data(), text.size()));
}

std::string job_of(const std::string& job, const AttributionPrompt& prompt) {
  const std::uint64_t ids = XXH3_64bits(prompt.ids.data(), prompt.ids.size() * sizeof(std::int32_t));
  return fmt::format("{}-{:016x}", job, ids);
}

/// What a rank needs for one prompt after another, the longest of them in the records.
struct Memory {
  std::int64_t models = 0, records = 0, maps = 0, batches = 0;
  std::int64_t total() const { return models + records + maps + batches; }
  std::string to_string() const {
    return fmt::format("models {}, one forward {}, maps of MLPs {}, a batch {}", readable_bytes(models),
                       readable_bytes(records), readable_bytes(maps), readable_bytes(batches));
  }
};

class AttributionRun {
 public:
  AttributionRun(const AttributionRequest& request, const RunEnvironment& environment)
      : request_(request), environment_(environment) {}

  void run() {
    bundle_ = load_fitting_adapters(request_.options, {.path = request_.adapters, .edit = {}}, environment_);
    agree(environment_.world, [&] { read_prompts(); });
    find_what_is_done();
    if (!missing_.empty()) {
      require_memory();
      make_graphs();
    }
    on_rank_zero(environment_.world, [&] { return finish(); });
  }

 private:
  fs::path file_of(const AttributionPrompt& prompt, const char* ending) const {
    return request_.directory / (prompt.slug + ending);
  }

  void read_prompts();
  void find_what_is_done();
  void require_memory();
  void make_graphs();
  AttributionModel load_model();
  void make_graph(AttributionModel& model, PromptMemory& memory, const AttributionPrompt& prompt, Rounds& rounds);
  void write(const AttributionGraph& graph, const AttributionPrompt& prompt);
  std::string finish();

  const AttributionRequest& request_;
  const RunEnvironment& environment_;
  std::optional<Tokenizer> tokenizer_;
  DecoderConfig config_;
  AdapterBundle bundle_;
  std::vector<AttributionPrompt> prompts_;
  std::vector<std::size_t> missing_;
  std::string adapters_, identity_, job_;
  std::int64_t left_bytes_ = 0;  ///< on the host, for contributions
};

void AttributionRun::read_prompts() {
  const fs::path& target = request_.options.model.target;
  config_ = load_decoder_config(environment_.files, target);
  tokenizer_ = Tokenizer::load(environment_.files, target);
  prompts_ =
      read_attribution_prompts(environment_.files, request_.prompts, request_.options.corpus.format, *tokenizer_);
  for (const AttributionPrompt& prompt : prompts_) {
    if (static_cast<std::int64_t>(prompt.ids.size()) > config_.max_positions)
      throw DataError("{}: a prompt of {} tokens: the model has {} positions ({})", prompt.place, prompt.ids.size(),
                      config_.max_positions, config_.file.string());
  }
  adapters_ = fingerprint(bundle_);
  identity_ = identity_of(request_.options, adapters_);
  job_ = job_of(request_, identity_);
}

void AttributionRun::find_what_is_done() {
  const std::string done = on_rank_zero(environment_.world, [&] {
    environment_.files.make_directories(request_.directory);
    std::string marks;
    for (const AttributionPrompt& prompt : prompts_) {
      const fs::path path = file_of(prompt, kBalancesEnding);
      const bool is_done = environment_.files.exists(path);
      if (is_done && parse_json(read_text(environment_.files, path), path).value("job", "") != job_of(job_, prompt))
        throw ConfigError("{}: of another job (other models, adapters, options or prompt); choose another place",
                          path.string());
      marks += is_done ? '1' : '0';
    }
    return marks;
  });
  for (std::size_t prompt = 0; prompt < prompts_.size(); ++prompt)
    if (done[prompt] == '0') missing_.push_back(prompt);
}

/// Says what is needed, and refuses what does not fit.
void AttributionRun::require_memory() {
  std::array<char, 256> name{};
  ::gethostname(name.data(), name.size() - 1);
  const std::string host = name.data();
  const auto sharing_host = std::ranges::count(environment_.world.all_gather_text(host, "hosts of all ranks"), host);
  const int sharing_device = ranks_on_device(environment_.context, environment_.world);
  const Device device = environment_.context.device();
  agree(environment_.world, [&] {
    std::int64_t most_features = 0;
    std::vector<AdapterShape> adapters;
    for (const AdapterBundle::Layer& layer : bundle_.layers) {
      most_features = std::max(most_features, layer.shape.features);
      adapters.push_back(layer.shape);
    }
    const auto longest = std::ranges::max_element(missing_, {}, [&](std::size_t i) { return prompts_[i].ids.size(); });
    const AttributionPrompt& prompt = prompts_[*longest];
    const auto tokens = static_cast<std::int64_t>(prompt.ids.size());
    const Memory memory{.models = AttributionModel::bytes(config_, adapters, device),
                        .records = PromptRecord::bytes(config_, tokens, most_features),
                        .maps = MlpMaps::bytes(config_, tokens, request_.growth.most_map_bytes),
                        .batches = AttributionPass::bytes(config_, request_.growth.batch, tokens)};
    const std::int64_t host_bytes =
        request_.most_bytes > 0 ? request_.most_bytes : static_cast<std::int64_t>(host_memory_bytes()) / sharing_host;
    require_device_memory(environment_.context, sharing_device, memory.total(), memory.to_string());
    left_bytes_ = host_bytes - (device == Device::kCpu ? memory.total() : 0);
    if (left_bytes_ < 0)
      throw ConfigError(
          "{}: a prompt of {} tokens needs {} bytes ({}: {}), a rank has {} ({}): take a smaller --batch "
          "or --maps-gib",
          prompt.place, tokens, memory.total(), readable_bytes(memory.total()), memory.to_string(), host_bytes,
          readable_bytes(host_bytes));
    environment_.print(
        fmt::format("attribution: {} prompt{} of up to {} tokens; a rank needs {} ({}), and has {} for contributions",
                    missing_.size(), missing_.size() == 1 ? "" : "s", tokens, readable_bytes(memory.total()),
                    memory.to_string(), readable_bytes(left_bytes_)));
  });
}

AttributionModel AttributionRun::load_model() {
  const auto& [base, target, compute] = request_.options.model;
  const ModelFiles target_files(target), base_files(base);
  const FileWeights target_weights(target_files), base_weights(base_files);
  const DecoderConfig base_config = load_decoder_config(environment_.files, base);
  std::vector<int> layers;
  for (const AdapterBundle::Layer& layer : bundle_.layers) layers.push_back(layer.layer);
  const HybridWeights hybrid({config_, target_weights}, {base_config, base_weights}, layers);
  return AttributionModel(environment_.context,
                          Decoder::make(environment_.context, config_, hybrid, {DType::kFloat32, Directions::kBoth}),
                          std::move(bundle_));
}

void AttributionRun::make_graphs() {
  std::optional<AttributionModel> model;
  environment_.heartbeat("loading models");
  agree(environment_.world, [&] { model.emplace(load_model()); });
  PromptMemory memory(environment_.context.device());
  Rounds rounds(environment_, {.name = "attribution",
                               .unit = "graphs",
                               .total = static_cast<std::int64_t>(prompts_.size()),
                               .done = static_cast<std::int64_t>(prompts_.size() - missing_.size()),
                               .every_seconds = request_.options.log.every_seconds,
                               .phase = "attribution",
                               .note = [](double features, double seconds) {
                                 return fmt::format("{} features in {}", count_text(features), duration_text(seconds));
                               }});
  try {
    const Communicator& world = environment_.world;
    for (auto i = static_cast<std::size_t>(world.rank()); i < missing_.size();
         i += static_cast<std::size_t>(world.size())) {
      make_graph(*model, memory, prompts_[missing_[i]], rounds);
      rounds.count();
    }
    rounds.finish();
  } catch (const Stopped&) {  // on all ranks in one round
    agree(environment_.world,
          [&] { throw Error(ExitCode::kRequeue, "attribution stopped on a signal; start it again to go on"); });
  }
}

void AttributionRun::make_graph(AttributionModel& model, PromptMemory& memory, const AttributionPrompt& prompt,
                                Rounds& rounds) {
  Context& context = environment_.context;
  std::int64_t told = 0;
  const OnGrowth on_growth = [&](std::int64_t features) {
    rounds.step(static_cast<double>(features - told));
    told = features;
  };
  try {
    const PromptRecord record(context, model, memory, prompt.ids);
    const GrowthOptions& growth = request_.growth;
    const int mapped = MlpMaps::layers_that_pay(config_, record, growth.most_features, growth.most_map_bytes);
    const MlpMaps maps(context, model, record, mapped, [&] { on_growth(0); });
    AttributionPass pass(context, model, memory, record, &maps);
    write(grow_graph(pass, request_.growth, left_bytes_, on_growth), prompt);
  } catch (const ConfigError& error) {
    throw ConfigError("{}: {}", prompt.place, error.what());
  } catch (const NonFiniteError& error) {
    throw NonFiniteError("{}: {}", prompt.place, error.what());
  }
}

void AttributionRun::write(const AttributionGraph& graph, const AttributionPrompt& prompt) {
  const PrunedGraph pruned = prune_graph(graph, request_.pruning);
  GraphLabels labels{.slug = prompt.slug,
                     .scan = "tadapt-" + identity_,
                     .prompt = shown_text(prompt.text),
                     .tokens = {},
                     .logits = {},
                     .node_share = request_.pruning.nodes};
  for (const std::int32_t id : prompt.ids) labels.tokens.push_back(shown_text(tokenizer_->token_bytes(id)));
  for (std::size_t node = graph.first_logit(); node < graph.nodes.size(); ++node)
    labels.logits.push_back(shown_text(tokenizer_->token_bytes(graph.nodes[node].id)));
  const Json json = graph_json(graph, pruned, labels), balances = balances_json(graph);
  const Json done = {{"job", job_of(job_, prompt)},
                     {"adapters", adapters_},
                     {"metadata", graph_metadata(labels)},
                     {"summary", graph_summary(graph, pruned)},
                     {"targets", balances}};
  write_atomically(environment_.files, file_of(prompt, ".json"), json.dump() + "\n");
  write_atomically(environment_.files, file_of(prompt, ".html"), graph_page(json, balances, request_.feature_url));
  write_atomically(environment_.files, file_of(prompt, kBalancesEnding), done.dump() + "\n");
}

/// The metadata of all graphs, and a line about each.
std::string AttributionRun::finish() {
  Json graphs = Json::array();
  for (const AttributionPrompt& prompt : prompts_) {
    const fs::path path = file_of(prompt, kBalancesEnding);
    const Json done = Json::parse(read_text(environment_.files, path));
    const Json& summary = done["summary"];
    graphs.push_back(done["metadata"]);
    const auto number = [&](const char* name) { return summary[name].get<std::int64_t>(); };
    environment_.print(fmt::format(
        "{}: {} tokens, {} active features, {} in the graph; {} features and {} edges after pruning; largest residual "
        "{:.2g} beside {:.3g}",
        prompt.slug, prompt.ids.size(), number("active_features"), number("features"), number("kept_features"),
        number("kept_edges"), summary["largest_residual"].get<double>(), summary["beside_value"].get<double>()));
  }
  write_atomically(environment_.files, request_.directory / kGraphMetadataFile,
                   Json{{"graphs", graphs}}.dump(1) + "\n");
  return "";
}

}  // namespace

void run_attribution(const AttributionRequest& request, const RunEnvironment& environment) {
  AttributionRun(request, environment).run();
}

}  // namespace tadapt
