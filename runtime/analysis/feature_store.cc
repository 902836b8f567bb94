#include "runtime/analysis/feature_store.h"

#include <algorithm>

#include "data/json.h"
#include "data/json_field.h"
#include "runtime/analysis/token_text.h"

namespace tadapt {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr std::int64_t kMost = std::int64_t{1} << 53;
constexpr std::uint64_t kMostDescriptionBytes = std::uint64_t{1} << 30;

template <class Counts>
void read_counts(const JsonField& field, Counts& counts) {
  if (field.array().size() != counts.size()) field.expected(fmt::format("{} numbers", counts.size()));
  for (std::size_t i = 0; i < counts.size(); ++i) counts[i] = field.at(i).integer(0, kMost);
}

FeatureStoreDescription read_description(const JsonField& root, const nlohmann::json& json) {
  if (const std::int64_t version = root["format_version"].integer(0, kMost); version != kFeatureStoreVersion)
    throw DataError("{}: format version {}, this program reads {}", root.place(), version, kFeatureStoreVersion);
  const JsonField records = root["records"], totals = root["totals"];
  FeatureStoreDescription description{
      .subject = root["subject"].string(),
      .identity = root["identity"].string(),
      .step = root["step"].integer(0, kMost),
      .corpus = root["corpus"].string(),
      .options = json.value("options", nlohmann::json::object()),
      .records = {.seed = static_cast<std::uint64_t>(records["seed"].integer(0, kMost)),
                  .top = static_cast<int>(records["top"].integer(0, 65535)),
                  .sampled = static_cast<int>(records["sampled"].integer(0, 65535)),
                  .contrast = records["contrast"].present()
                                  ? static_cast<int>(records["contrast"].integer(0, kMostContrastWindows))
                                  : 0},
      .sequences = root["sequences"].integer(0, kMost),
      .skipped = root["skipped"].integer(0, kMost),
      .totals = {},
      .domains = {}};
  for (std::size_t i = 0; i < root["domains"].array().size(); ++i)
    description.domains.push_back(root["domains"].at(i).string());
  description.totals.tokens = totals["tokens"].integer(0, kMost);
  description.totals.by_domain.resize(description.domains.size());
  read_counts(totals["by_domain"], description.totals.by_domain);
  read_counts(totals["by_region"], description.totals.by_region);
  read_counts(totals["by_thinking"], description.totals.by_thinking);
  return description;
}

/// [i·n, (i + 1)·n) of a table.
template <class T>
std::span<const T> row(const std::vector<T>& table, std::int64_t index, std::size_t rows) {
  const std::size_t width = table.size() / rows;
  return std::span(table).subspan(static_cast<std::size_t>(index) * width, width);
}

/// DataError unless `begins` are the ascending beginnings of `count` runs of `total` things.
void require_runs(const std::vector<std::int64_t>& begins, std::size_t count, std::size_t total, const char* what) {
  if (begins.size() != count + 1 || begins.front() != 0 || !std::ranges::is_sorted(begins) ||
      begins.back() != static_cast<std::int64_t>(total))
    throw DataError("feature store: the beginnings of {} do not fit them", what);
}

std::vector<LensToken> lens_tokens(std::span<const std::int32_t> ids, std::span<const float> logits) {
  std::vector<LensToken> tokens;
  for (std::size_t i = 0; i < ids.size(); ++i) tokens.push_back({ids[i], logits[i]});
  return tokens;
}

template <class T>
void require_size(const std::vector<T>& values, std::size_t expected, const char* name) {
  if (values.size() != expected)
    throw DataError("feature store: {} has {} numbers, expected {}", name, values.size(), expected);
}

}  // namespace

Json FeatureStoreDescription::to_json() const {
  return {{"format_version", kFeatureStoreVersion},
          {"subject", subject},
          {"identity", identity},
          {"step", step},
          {"corpus", corpus},
          {"options", options},
          {"records",
           {{"seed", records.seed},
            {"top", records.top},
            {"sampled", records.sampled},
            {"contrast", records.contrast},
            {"tokens_before", kTokensBefore},
            {"tokens_after", kTokensAfter}}},
          {"sequences", sequences},
          {"skipped", skipped},
          {"domains", domains},
          {"regions", kRegionNames},
          {"totals",
           {{"tokens", totals.tokens},
            {"by_domain", totals.by_domain},
            {"by_region", totals.by_region},
            {"by_thinking", totals.by_thinking}}}};
}

StoredLayer::StoredLayer(int layer, const ColumnFile& file)
    : layer_(layer),
      id_(file.read<std::int32_t>("id")),
      tops_(file.read<std::int32_t>("examples/top")),
      top_id_(file.read<std::int32_t>("lens/top_id")),
      bottom_id_(file.read<std::int32_t>("lens/bottom_id")),
      position_(file.read<std::int32_t>("examples/position")),
      region_offset_(file.read<std::int32_t>("examples/region_offset")),
      active_(file.read<std::int64_t>("active")),
      by_domain_(file.read<std::int64_t>("by_domain")),
      by_region_(file.read<std::int64_t>("by_region")),
      by_thinking_(file.read<std::int64_t>("by_thinking")),
      histogram_(file.read<std::int64_t>("histogram")),
      begin_(file.read<std::int64_t>("examples/begin")),
      sequence_(file.read<std::int64_t>("examples/sequence")),
      near_begin_(file.read<std::int64_t>("examples/near_begin")),
      region_(file.read<std::int8_t>("examples/region")),
      activation_(file.read<float>("examples/activation")),
      top_logit_(file.read<float>("lens/top_logit")),
      bottom_logit_(file.read<float>("lens/bottom_logit")) {
  const std::vector<std::int8_t> offsets = file.read<std::int8_t>("near/offset");
  const std::vector<float> activations = file.read<float>("near/activation");
  require_size(activations, offsets.size(), "near/activation");
  for (std::size_t i = 0; i < offsets.size(); ++i) near_.push_back({offsets[i], activations[i]});
  const std::size_t count = id_.size(), examples = sequence_.size();
  require_runs(begin_, count, examples, "examples");
  require_runs(near_begin_, examples, near_.size(), "near activations");
  require_size(active_, count, "active");
  require_size(tops_, count, "examples/top");
  require_size(top_logit_, top_id_.size(), "lens/top_logit");
  require_size(bottom_id_, top_id_.size(), "lens/bottom_id");
  require_size(bottom_logit_, top_id_.size(), "lens/bottom_logit");
  require_size(by_region_, count * kRegionNames.size(), "by_region");
  require_size(by_thinking_, count * kThinkingBins, "by_thinking");
  require_size(histogram_, count * kHistogramBins, "histogram");
  require_size(position_, examples, "examples/position");
  require_size(region_offset_, examples, "examples/region_offset");
  require_size(activation_, examples, "examples/activation");
  require_size(region_, examples, "examples/region");
  if (file.has("contrast/begin")) {
    contrast_begin_ = file.read<std::int64_t>("contrast/begin");
    contrast_ = file.read<std::int32_t>("contrast/window");
  } else {
    contrast_begin_.resize(count + 1);
  }
  require_runs(contrast_begin_, count, contrast_.size(), "contrast windows");
  for (std::size_t i = 0; i < count; ++i)
    if (tops_[i] < 0 || tops_[i] > begin_[i + 1] - begin_[i])
      throw DataError("feature store: feature {} of layer {} has {} top examples of {}", id_[i], layer_, tops_[i],
                      begin_[i + 1] - begin_[i]);
  for (const std::int8_t region : region_)
    if (region < 0 || static_cast<std::size_t>(region) >= kRegionNames.size())
      throw DataError("feature store: there is no region {}", region);
}

StoredFeature StoredLayer::feature(std::int64_t index) const {
  require_shape(0 <= index && index < features(), "feature {} of {}", index, features());
  const auto at = static_cast<std::size_t>(index);
  const std::size_t count = id_.size();
  StoredFeature feature{.id = id_[at],
                        .counts = {.active = active_[at],
                                   .by_domain = row(by_domain_, index, count),
                                   .by_region = row(by_region_, index, count),
                                   .by_thinking = row(by_thinking_, index, count),
                                   .histogram = row(histogram_, index, count)},
                        .promoted = lens_tokens(row(top_id_, index, count), row(top_logit_, index, count)),
                        .suppressed = lens_tokens(row(bottom_id_, index, count), row(bottom_logit_, index, count)),
                        .top = {},
                        .sampled = {},
                        .contrast = std::span(contrast_).subspan(
                            static_cast<std::size_t>(contrast_begin_[at]),
                            static_cast<std::size_t>(contrast_begin_[at + 1] - contrast_begin_[at]))};
  const std::int64_t middle = begin_[at] + tops_[at];
  feature.top = examples(begin_[at], middle);
  feature.sampled = examples(middle, begin_[at + 1]);
  return feature;
}

std::vector<StoredExample> StoredLayer::examples(std::int64_t begin, std::int64_t end) const {
  std::vector<StoredExample> found;
  for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i)
    found.push_back({.activation = activation_[i],
                     .sequence = sequence_[i],
                     .position = position_[i],
                     .region = static_cast<Region>(region_[i]),
                     .region_offset = region_offset_[i],
                     .near = std::span(near_).subspan(static_cast<std::size_t>(near_begin_[i]),
                                                      static_cast<std::size_t>(near_begin_[i + 1] - near_begin_[i]))});
  return found;
}

StoredTokens::StoredTokens(const ColumnFile& file)
    : number_(file.read<std::int64_t>("sequences/number")),
      line_(file.read<std::int64_t>("sequences/line")),
      begin_(file.read<std::int64_t>("sequences/begin")),
      text_begin_(file.read<std::int64_t>("vocabulary/begin")),
      domain_(file.read<std::int32_t>("sequences/domain")),
      id_(file.read<std::int32_t>("tokens/id")),
      region_(file.read<std::int8_t>("tokens/region")),
      text_(file.read<std::int8_t>("vocabulary/bytes")) {
  require_size(line_, number_.size(), "sequences/line");
  require_size(domain_, number_.size(), "sequences/domain");
  require_size(region_, id_.size(), "tokens/region");
  require_runs(begin_, number_.size(), id_.size(), "conversations");
  if (text_begin_.empty()) throw DataError("feature store: no vocabulary");
  require_runs(text_begin_, text_begin_.size() - 1, text_.size(), "tokens' bytes");
  if (!file.has("contrast/sequence")) return;
  const std::vector<std::int64_t> sequences = file.read<std::int64_t>("contrast/sequence");
  const std::vector<std::int32_t> positions = file.read<std::int32_t>("contrast/position");
  require_size(positions, sequences.size(), "contrast/position");
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    if (positions[i] < 0 || positions[i] >= std::ssize(with_number(sequences[i]).ids))
      throw DataError("feature store: there is no token {} in conversation {}", positions[i], sequences[i]);
    contrast_.push_back({sequences[i], positions[i]});
  }
}

StoredTokens::Sequence StoredTokens::sequence(std::int64_t index) const {
  require_shape(0 <= index && index < size(), "conversation {} of {}", index, size());
  const auto at = static_cast<std::size_t>(index);
  const auto begin = static_cast<std::size_t>(begin_[at]), tokens = static_cast<std::size_t>(begin_[at + 1]) - begin;
  return {.number = number_[at],
          .line = line_[at],
          .domain = domain_[at],
          .ids = std::span(id_).subspan(begin, tokens),
          .regions = std::span(region_).subspan(begin, tokens)};
}

std::int64_t StoredTokens::index_of(std::int64_t number) const {
  const auto found = std::ranges::lower_bound(number_, number);
  if (found == number_.end() || *found != number) throw DataError("feature store: has no conversation {}", number);
  return found - number_.begin();
}

std::string StoredTokens::text(std::span<const std::int32_t> ids) const {
  std::string bytes;
  for (const std::int32_t id : ids) {
    if (id < 0 || id >= vocabulary_size()) continue;
    const auto at = static_cast<std::size_t>(id);
    for (auto i = text_begin_[at]; i < text_begin_[at + 1]; ++i)
      bytes += static_cast<char>(text_[static_cast<std::size_t>(i)]);
  }
  return shown_text(bytes);
}

FeatureStore::FeatureStore(FileSystem& files, fs::path directory) : files_(files), directory_(std::move(directory)) {
  const fs::path path = directory_ / kFeatureStoreFile;
  if (!files.exists(path))
    throw MissingInputError("{}: no features were collected here (or not to the end): there is no {}",
                            directory_.string(), kFeatureStoreFile);
  json_ = parse_json(read_text(files, path, kMostDescriptionBytes), path);
  const JsonField root(json_, path.string());
  description_ = read_description(root, json_);
  for (std::size_t i = 0; i < root["layers"].array().size(); ++i) {
    const JsonField layer = root["layers"].at(i);
    layer["layer"].integer(0, 1 << 20);
    layer["features"].integer(0, std::int64_t{1} << 31);
    layer["listing"].object();
  }
  root["tokens"].object();
}

std::vector<int> FeatureStore::layers() const {
  std::vector<int> layers;
  for (const nlohmann::json& layer : json_.at("layers")) layers.push_back(layer.at("layer").get<int>());
  return layers;
}

const nlohmann::json& FeatureStore::listing(int layer) const {
  for (const nlohmann::json& entry : json_.at("layers"))
    if (entry.at("layer") == layer) return entry;
  throw DataError("{}: layer {} is not in this feature store", directory_.string(), layer);
}

std::int64_t FeatureStore::features(int layer) const { return listing(layer).at("features").get<std::int64_t>(); }

void FeatureStore::require_identity(const std::string& identity) const {
  if (description_.identity != identity)
    throw ConfigError("{}: holds features of {}, not of {}", directory_.string(), description_.identity, identity);
}

StoredLayer FeatureStore::layer(int layer) const {
  return StoredLayer(layer, ColumnFile(files_, directory_, listing(layer).at("listing")));
}

StoredTokens FeatureStore::tokens() const { return StoredTokens(ColumnFile(files_, directory_, json_.at("tokens"))); }

}  // namespace tadapt
