// FeatureStore: what was collected of features, on disk: the one place from which everything else reads it.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/tokenizer.h"
#include "runtime/analysis/column_file.h"
#include "runtime/analysis/contrast_windows.h"
#include "runtime/analysis/logit_lens.h"

namespace tadapt {

inline constexpr std::int64_t kFeatureStoreVersion = 1;
inline constexpr char kFeatureStoreFile[] = "features.json";  ///< written last: with it the store is whole

/// Where a store's features come from and what they were collected over.
struct FeatureStoreDescription {
  std::string subject;   ///< "adapters", "neurons of the base", "neurons of the target"
  std::string identity;  ///< of the adapters or the model
  std::int64_t step = 0;
  std::string corpus;              ///< fingerprint of its tokens
  nlohmann::ordered_json options;  ///< those of the run on which the numbers depend
  RecordOptions records;
  std::int64_t sequences = 0;  ///< conversations with <think> … </think>
  std::int64_t skipped = 0;    ///< conversations without
  TokenTotals totals;
  std::vector<std::string> domains;  ///< "" is that of conversations without one

  nlohmann::ordered_json to_json() const;
};

struct LensToken {
  std::int32_t id = 0;
  float logit = 0.0f;
};

struct StoredExample {
  float activation = 0.0f;
  std::int64_t sequence = 0;  ///< number in the corpus, from 0
  std::int32_t position = 0;
  Region region = Region::kBos;
  std::int32_t region_offset = 0;        ///< tokens of the same region right before it
  std::span<const NearActivation> near;  ///< offsets ascending, its own among them
};

/// Valid as long as its layer.
struct StoredFeature {
  std::int32_t id = 0;
  FeatureCounts counts;
  std::vector<LensToken> promoted, suppressed;  ///< strongest first
  std::vector<StoredExample> top, sampled;
  std::span<const std::int32_t> contrast;  ///< numbers of the contrast windows in which it is active, ascending
};

/// All features of a layer, in memory.
class StoredLayer {
 public:
  StoredLayer(int layer, const ColumnFile& file);

  int layer() const { return layer_; }
  std::int64_t features() const { return static_cast<std::int64_t>(id_.size()); }
  StoredFeature feature(std::int64_t index) const;

 private:
  std::vector<StoredExample> examples(std::int64_t begin, std::int64_t end) const;

  int layer_;
  std::vector<std::int32_t> id_, tops_, top_id_, bottom_id_, position_, region_offset_, contrast_;
  std::vector<std::int64_t> active_, by_domain_, by_region_, by_thinking_, histogram_, begin_, sequence_, near_begin_,
      contrast_begin_;
  std::vector<std::int8_t> region_;
  std::vector<float> activation_, top_logit_, bottom_logit_;
  std::vector<NearActivation> near_;
};

/// The conversations and what the tokens read.
class StoredTokens {
 public:
  explicit StoredTokens(const ColumnFile& file);

  struct Sequence {
    std::int64_t number = 0;  ///< in the corpus, from 0
    std::int64_t line = 0;    ///< of the corpus file, from 1
    std::int32_t domain = 0;
    std::span<const std::int32_t> ids;
    std::span<const std::int8_t> regions;
  };
  std::int64_t size() const { return static_cast<std::int64_t>(number_.size()); }
  Sequence sequence(std::int64_t index) const;
  /// DataError when there is none of this number.
  std::int64_t index_of(std::int64_t number) const;
  Sequence with_number(std::int64_t number) const { return sequence(index_of(number)); }
  /// Of all conversations, one after another.
  std::span<const std::int32_t> ids() const { return id_; }
  /// Ids that the tokenizer has.
  std::int32_t vocabulary_size() const { return static_cast<std::int32_t>(text_begin_.size()) - 1; }
  /// As people are shown it (shown_text); empty for an id without a token.
  std::string text(std::int32_t id) const { return text(std::span(&id, 1)); }
  /// Of tokens one after another: a character that several of them hold a piece of is whole.
  std::string text(std::span<const std::int32_t> ids) const;
  /// In the order of their numbers; none in stores of programs that did not draw them.
  std::span<const ContrastWindow> contrast() const { return contrast_; }

 private:
  std::vector<std::int64_t> number_, line_, begin_, text_begin_;
  std::vector<std::int32_t> domain_, id_;
  std::vector<std::int8_t> region_, text_;
  std::vector<ContrastWindow> contrast_;
};

class FeatureStore {
 public:
  /// MissingInputError when there is no whole store, DataError when its description is wrong.
  FeatureStore(FileSystem& files, std::filesystem::path directory);

  const std::filesystem::path& directory() const { return directory_; }
  const FeatureStoreDescription& description() const { return description_; }
  std::vector<int> layers() const;
  std::int64_t features(int layer) const;
  /// ConfigError naming both when the features are not those of the adapters (or model) with this identity.
  void require_identity(const std::string& identity) const;
  StoredLayer layer(int layer) const;
  StoredTokens tokens() const;

 private:
  const nlohmann::json& listing(int layer) const;

  FileSystem& files_;
  std::filesystem::path directory_;
  nlohmann::json json_;
  FeatureStoreDescription description_;
};

/// Writes a store, file by file.
struct FeatureStoreWriter {
  FileSystem& files;
  std::filesystem::path directory;

  /// What the store keeps of a layer. `ids`: of the features, ascending.
  nlohmann::ordered_json write_layer(const LayerRecords& records, std::span<const std::int32_t> ids,
                                     const LensTable& lens, const MarkedCorpus& corpus) const;
  nlohmann::ordered_json write_tokens(const MarkedCorpus& corpus, std::span<const ContrastWindow> contrast,
                                      const Tokenizer& tokenizer) const;
  /// The description, last. `layers` and `tokens` are what the others gave.
  void finish(const FeatureStoreDescription& description, const nlohmann::ordered_json& layers,
              const nlohmann::ordered_json& tokens) const;
};

}  // namespace tadapt
