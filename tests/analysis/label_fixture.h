// A feature store over conversations of the toy corpus whose activations a test knows, since it made them up.
#pragma once

#include <fstream>
#include <functional>
#include <map>
#include <optional>

#include "runtime/analysis/label_run.h"
#include "tests/support/errors.h"
#include "tests/support/temporary_directory.h"

namespace tadapt::testing {

/// The features of each of two layers.
enum LabelFeature : std::int32_t {
  kOften,  ///< active on every 150th token: everything can be asked about it
  kPairs,  ///< active on two tokens in a row, at the fourth and fifth of some conversations
  kDead,
  kTwice,  ///< active on two tokens of the corpus
  kDense,  ///< active on every third token: no text is silent
  kWord,   ///< active on one token of the vocabulary
};
inline constexpr int kLabelFeatures = 6;
inline constexpr int kLabelLayers[] = {1, 4};

class LabelFixture : public ::testing::Test {
 protected:
  void SetUp() override { write_store("store", 256); }

  void write_store(const std::string& name, int contrast_windows) {
    const std::filesystem::path toy = std::filesystem::path(TADAPT_SOURCE_DIR) / "data/toy";
    std::ifstream corpus(toy / "validation.jsonl");
    std::string lines;
    int line = 0;
    for (std::string text; line < 200 && std::getline(corpus, text); ++line) lines += text + "\n";
    write_atomically(files_, folder_ / "corpus.jsonl", lines);
    const Tokenizer tokenizer = Tokenizer::load(files_, toy / "target");
    const TokenDataset dataset = TokenDataset::build(files_, folder_ / "corpus.jsonl", tokenizer, {.max_tokens = 300});
    const MarkedCorpus marked(dataset, RegionFinder(ChatFormat::kDeepseek, tokenizer), "corpus.jsonl");
    const RecordOptions options{.seed = 7, .top = 20, .sampled = 10, .contrast = contrast_windows};
    const ContrastWindows contrast(marked, options.seed, options.contrast);
    BatchPlaces places;
    std::vector<std::int32_t> ids;
    for (std::int64_t i = 0; i < marked.size(); ++i) {
      places.append(marked.number(i), marked.sequence(i).domain, marked.places(i));
      contrast.mark(places);
      ids.insert(ids.end(), marked.sequence(i).ids.begin(), marked.sequence(i).ids.end());
    }
    const FeatureStoreWriter writer{files_, folder_ / name};
    files_.make_directories(writer.directory);
    nlohmann::ordered_json layers = nlohmann::ordered_json::array();
    for (const int layer : kLabelLayers) layers.push_back(write_layer(writer, layer, ids, places, marked, options));
    writer.finish({.subject = "adapters",
                   .identity = "transcoder 0123456789abcdef",
                   .step = 10,
                   .corpus = "0123456789abcdef",
                   .options = nlohmann::ordered_json::object(),
                   .records = options,
                   .sequences = marked.size(),
                   .skipped = marked.skipped(),
                   .totals = marked.totals(),
                   .domains = dataset.domains()},
                  layers, writer.write_tokens(marked, contrast.all(), tokenizer));
  }

  LabelRequest request(const std::string& out) {
    return {.features = folder_ / "store",
            .out = folder_ / out,
            .choice = {},
            .tasks = {LabelTask::kClassify, LabelTask::kDescribe, LabelTask::kDetect},
            .judge = {.endpoint = "", .model = "judge", .key = ""}};
  }
  LabelEnvironment environment() {
    return {.files = files_,
            .who = "test",
            .print = [this](const std::string& text) { said_ += text + "\n"; },
            .stop_requested = [] { return false; }};
  }

  /// Activations by (conversation, position), of every layer alike.
  using Activations = std::map<std::pair<std::int64_t, std::int32_t>, float>;
  const Activations& activations(std::int32_t feature) const { return activations_.at(feature); }
  bool is_active(std::int32_t feature, const LabelText& text) const {
    for (std::int32_t token = text.tokens.begin; token < text.tokens.end; ++token)
      if (activations(feature).contains({text.sequence, token})) return true;
    return false;
  }

  RealFileSystem files_;
  TemporaryDirectory folder_;
  std::string said_;

 private:
  nlohmann::ordered_json write_layer(const FeatureStoreWriter& writer, int layer, const std::vector<std::int32_t>& ids,
                                     const BatchPlaces& places, const MarkedCorpus& marked,
                                     const RecordOptions& options) {
    std::vector<std::int32_t> offsets{0}, rows, numbers;
    std::vector<float> values;
    for (std::int32_t feature = 0; feature < kLabelFeatures; ++feature) {
      Activations& known = activations_[feature];
      known.clear();
      for (std::size_t row = 0; row < ids.size(); ++row) {
        if (!activates(feature, row, ids, places)) continue;
        rows.push_back(static_cast<std::int32_t>(row));
        values.push_back(0.5f + static_cast<float>((row * 7919) % 1000) / 100.0f);
        known[{places.sequences[static_cast<std::size_t>(places.of_row[row])], places.positions[row]}] = values.back();
      }
      offsets.push_back(static_cast<std::int32_t>(rows.size()));
      numbers.push_back(feature);
    }
    LayerRecords records(layer, kLabelFeatures, static_cast<std::int64_t>(marked.totals().by_domain.size()), options);
    Context context = Context::cpu(1);
    records.add(context, {.offsets = offsets, .rows = rows, .activations = values}, places);
    LensTable lens{.tokens = kLensTokens, .top_ids = {}, .bottom_ids = {}, .top_logits = {}, .bottom_logits = {}};
    for (std::int64_t i = 0; i < kLabelFeatures * kLensTokens; ++i) {
      lens.top_ids.push_back(static_cast<std::int32_t>(100 + i));
      lens.bottom_ids.push_back(static_cast<std::int32_t>(200 + i));
      lens.top_logits.push_back(1.0f);
      lens.bottom_logits.push_back(-1.0f);
    }
    return writer.write_layer(records, numbers, lens, marked);
  }

  static bool activates(std::int32_t feature, std::size_t row, const std::vector<std::int32_t>& ids,
                        const BatchPlaces& places) {
    const std::int32_t position = places.positions[row], conversation = places.of_row[row];
    switch (feature) {
      case kOften:
        return row % 150 == 40;
      case kPairs:
        return conversation % 3 == 0 && (position == 4 || position == 5);
      case kTwice:
        return row == 500 || row == 3000;
      case kDense:
        return row % 3 == 0;
      case kWord:
        return ids[row] == ids[60];
      default:
        return false;
    }
  }

  std::map<std::int32_t, Activations> activations_;
};

}  // namespace tadapt::testing
