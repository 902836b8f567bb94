#include "runtime/analysis/feature_run.h"

#include <xxhash.h>

#include <algorithm>

#include "data/model_files.h"
#include "runtime/bundle/feature_set.h"
#include "runtime/eval/evaluation.h"
#include "runtime/train/agreement.h"
#include "runtime/train/option_table.h"
#include "runtime/train/prepare_cache.h"
#include "runtime/train/progress.h"

namespace tadapt {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr char kPartial[] = "partial";
constexpr char kLock[] = "features.lock";
constexpr std::size_t kLensBytes = std::size_t{256} << 20;  ///< for logits at a time

std::string hash_of(const std::string& text) { return fmt::format("{:016x}", XXH3_64bits(text.data(), text.size())); }

/// Everything that is read before models are.
class Collection {
 public:
  Collection(const FeatureRequest& request, const RunEnvironment& environment)
      : request_(request), environment_(environment) {
    agree(environment.world, [&] {
      const fs::path& target = request.options.model.target;
      tokenizer_.emplace(Tokenizer::load(environment.files, target));
      dataset_.emplace(load_corpus(request.options, request.corpus, environment));
      corpus_.emplace(*dataset_, RegionFinder(request.options.corpus.format, *tokenizer_), request.corpus.string());
      contrast_ = ContrastWindows(*corpus_, request.records.seed, request.records.contrast);
      config_ = load_decoder_config(environment.files, target);
      for (std::int64_t i = 0; i < corpus_->size(); ++i)
        require_positions(config_, corpus_->number(i), static_cast<std::int64_t>(corpus_->sequence(i).ids.size()));
    });
    bundle_ = load_fitting_adapters(request.options, {.path = request.adapters, .edit = {}}, environment);
  }

  void describe() const {
    double memory = 0, disk = 9.0 * static_cast<double>(corpus_->totals().tokens), features = 0, adapter_flops = 0;
    const double examples = request_.records.top + request_.records.sampled;
    for (const AdapterBundle::Layer& layer : bundle_.layers) {
      const auto count = static_cast<double>(layer.shape.features);
      const auto domains = static_cast<std::int64_t>(dataset_->domains().size());
      memory += LayerRecords::most_bytes(layer.shape.features, domains, request_.records);
      disk += count * (8.0 * (static_cast<double>(domains) + 90.0) + examples * (30.0 + 5.0 * 71.0) + 160.0 +
                       4.0 * static_cast<double>(contrast_.all().size()));
      features += count;
      adapter_flops += 4.0 * count * static_cast<double>(layer.shape.model_width);
    }
    const ForwardFlops flops = forward_flops(config_);
    double work = 0;
    for (std::int64_t i = 0; i < corpus_->size(); ++i) {
      const auto tokens = static_cast<double>(corpus_->places(i).size());
      work += tokens * (config_.layers * (flops.attention_per_token + flops.mlp_per_token +
                                          flops.attention_per_context * tokens / 2) +
                        adapter_flops);
    }
    environment_.print(fmt::format(
        "features: {} of step {}: {} features in {} layers over {} conversations ({} without <think> … </think> left "
        "out), {} tokens; {} FLOP; at most {}B of records a rank, {}B on disk",
        bundle_.source, bundle_.step, count_text(features), bundle_.layers.size(), corpus_->size(), corpus_->skipped(),
        count_text(static_cast<double>(corpus_->totals().tokens)), count_text(work), count_text(memory),
        count_text(disk)));
  }

  FeatureOutcome run() {
    std::unique_ptr<FileLock> lock;
    on_rank_zero(environment_.world, [&] {
      environment_.files.make_directories(request_.out);
      lock = environment_.files.lock(request_.out / kLock, environment_.who);
      return std::string();
    });
    const FeatureStoreDescription adapters = description("adapters", fingerprint(bundle_), bundle_.step);
    const auto make_adapters = [&] {
      return std::make_unique<AdapterFeatures>(environment_.context, pair(), bundle_, request_.options.train.compute);
    };
    if (!store(request_.out, adapters, make_adapters)) return FeatureOutcome::kStopped;
    if (request_.neurons > 0 && !neurons()) return FeatureOutcome::kStopped;
    if (request_.circuit_tracer)
      export_circuit_tracer(FeatureStore(environment_.files, request_.out), *request_.circuit_tracer,
                            request_.out / "circuit-tracer", environment_);
    return FeatureOutcome::kDone;
  }

 private:
  using MakeSource = std::function<std::unique_ptr<FeatureSource>()>;

  /// Loaded when first needed: a collection that is whole already needs no models.
  const Decoder& pair() {
    const auto& [base, target, compute] = request_.options.model;
    environment_.heartbeat("loading models");
    if (!pair_) pair_ = Decoder::load_pair(environment_.context, environment_.files, target, base, compute);
    return *pair_;
  }

  FeatureStoreDescription description(std::string subject, std::string identity, std::int64_t step) const {
    Json options;
    for (const char* key : {"corpus.format", "corpus.max_sequence_tokens", "model.compute", "train.compute"})
      options[key] = find_option(key)->value(request_.options);
    return {.subject = std::move(subject),
            .identity = std::move(identity),
            .step = step,
            .corpus = fmt::format("{:016x}", dataset_->fingerprint()),
            .options = std::move(options),
            .records = request_.records,
            .sequences = corpus_->size(),
            .skipped = corpus_->skipped(),
            .totals = corpus_->totals(),
            .domains = dataset_->domains()};
  }

  bool neurons() {
    const auto& [base, target, compute] = request_.options.model;
    const NeuronFeatures::Choice choice{
        .count = request_.neurons, .seed = request_.records.seed, .rule = request_.neuron_rule};
    const char* rule = choice.rule == NeuronRule::kPositive ? "positive" : "absolute";
    const auto of = [&](const char* name, const fs::path& model, const std::function<const Decoder&()>& decoder) {
      FeatureStoreDescription neurons =
          description(fmt::format("neurons of the {}", name), model_fingerprint(model), 0);
      neurons.options["neurons"] = choice.count;
      neurons.options["neuron_rule"] = rule;
      return store(request_.out / fmt::format("neurons-{}", name), neurons,
                   [&] { return std::make_unique<NeuronFeatures>(environment_.context, decoder(), model, choice); });
    };
    if (!of("target", target, [&]() -> const Decoder& { return pair(); })) return false;
    if (const auto refusal = base_row_refusal(load_decoder_config(environment_.files, base), config_)) {
      environment_.print(fmt::format("features: no neurons of the base: {}", *refusal));
      return true;
    }
    std::optional<Decoder> alone;
    return of("base", base, [&]() -> const Decoder& {
      alone = pair().load_base(environment_.context, environment_.files, base);
      return *alone;
    });
  }

  /// Makes one store unless it is there. False when a stop was asked for.
  bool store(const fs::path& out, const FeatureStoreDescription& description, const MakeSource& make) {
    const std::string there = on_rank_zero(environment_.world, [&] { return whole_store(out, description); });
    if (!there.empty()) {
      environment_.print(there);
      return true;
    }
    std::unique_ptr<FeatureSource> source;
    agree(environment_.world, [&] { source = make(); });
    const CollectionJob job{.name = description.subject == "adapters" ? "features" : description.subject,
                            .source = *source,
                            .corpus = *corpus_,
                            .contrast = contrast_,
                            .records = request_.records,
                            .identity = hash_of(description.to_json().dump()),
                            .directory = out / kPartial,
                            .batch_tokens = request_.batch_tokens,
                            .unit = request_.unit,
                            .save_seconds = request_.save_seconds,
                            .meeting_seconds = request_.meeting_seconds,
                            .progress_seconds = request_.options.log.every_seconds};
    std::optional<std::vector<LayerRecords>> records = collect(job, environment_);
    if (!records) return false;
    write(out, job, *records, description);
    return true;
  }

  /// What to say when the store is there; empty when it is to be made. ConfigError when it is another one.
  std::string whole_store(const fs::path& out, const FeatureStoreDescription& description) const {
    if (!environment_.files.exists(out / kFeatureStoreFile)) return "";
    const FeatureStore found(environment_.files, out);
    found.require_identity(description.identity);
    if (found.description().to_json() != description.to_json())
      throw ConfigError("{}: holds a collection over another corpus or with other options; choose another --out",
                        out.string());
    return fmt::format("features: {} is there", out.string());
  }

  /// Ranks write their layers, rank 0 the rest.
  void write(const fs::path& out, const CollectionJob& job, std::vector<LayerRecords>& records,
             const FeatureStoreDescription& description) const {
    const FeatureStoreWriter writer{environment_.files, out};
    const auto ranks = static_cast<std::size_t>(environment_.world.size());
    Json layers = Json::array();
    for (std::size_t first = 0; first < records.size(); first += ranks) {
      const std::optional<LayerRecords> mine = join_layers(records, first, job, environment_);
      std::string text;
      agree(environment_.world, [&] {
        if (mine) text = write_layer(writer, job.source, *mine).dump();
      });
      for (const std::string& layer : environment_.world.all_gather_text(text, "layers that were written"))
        if (!layer.empty()) layers.push_back(Json::parse(layer));
    }
    on_rank_zero(environment_.world, [&] {
      environment_.heartbeat("writing the feature store");
      writer.finish(description, layers, writer.write_tokens(*corpus_, contrast_.all(), *tokenizer_));
      environment_.files.remove_all(out / kPartial);
      return std::string();
    });
  }

  Json write_layer(const FeatureStoreWriter& writer, const FeatureSource& source, const LayerRecords& records) const {
    const auto alive = [&] { environment_.heartbeat(fmt::format("logit lens of layer {}", records.layer())); };
    const LensTable lens =
        logit_lens(environment_.context, source.decoder(), source.directions(records.layer()), kLensBytes, alive);
    return writer.write_layer(records, source.ids(records.layer()), lens, *corpus_);
  }

  const FeatureRequest& request_;
  const RunEnvironment& environment_;
  std::optional<Tokenizer> tokenizer_;
  std::optional<TokenDataset> dataset_;
  std::optional<MarkedCorpus> corpus_;
  ContrastWindows contrast_;
  DecoderConfig config_;
  AdapterBundle bundle_;
  std::optional<Decoder> pair_;
};

}  // namespace

FeatureOutcome collect_features(const FeatureRequest& request, const RunEnvironment& environment) {
  Collection collection(request, environment);
  collection.describe();
  return collection.run();
}

void describe_features(const FeatureRequest& request, const RunEnvironment& environment) {
  Collection(request, environment).describe();
}

}  // namespace tadapt
