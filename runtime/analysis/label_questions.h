// LabelQuestions: the questions about chosen features, one after the other, made as they are asked for.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runtime/analysis/label_features.h"
#include "runtime/analysis/label_log.h"
#include "runtime/analysis/label_prompts.h"

namespace tadapt {

/// What detection asks about a feature that has no description yet.
enum class Undescribed {
  kLeftOut,
  kExpected,  ///< a question of usual length where a description is still to be asked for: for estimates
};

/// All of it outlives the questions.
struct LabelSource {
  const FeatureStore& store;
  const StoredTokens& tokens;
  const ChosenFeatures& chosen;
  const LabelAnswers& answers;
  std::uint64_t seed = 0;
  bool again = false;  ///< what was answered without a label is asked again

  bool is_open(const std::string& id) const;
};

/// Features about which something was not asked.
struct LabelSkips {
  std::int64_t few_texts = 0;            ///< too few to classify or describe
  std::int64_t few_to_detect = 0;        ///< of the others: too few held-out or silent texts
  std::int64_t without_description = 0;  ///< of the others: nothing to detect by
};

class LabelQuestions {
 public:
  LabelQuestions(const LabelSource& source, std::vector<LabelTask> tasks, Undescribed undescribed);

  /// In order of layer, feature and task, answered ones too; nothing behind the last. A layer is in memory at a time.
  std::optional<LabelQuestion> next();
  /// The next one that is_open().
  std::optional<LabelQuestion> next_open();
  /// So far.
  const LabelSkips& skips() const { return skips_; }

 private:
  bool next_feature();
  void ask_about(const StoredFeature& feature);
  std::optional<std::string> description(const LabelQuestion& describe) const;
  bool wants(LabelTask task) const;

  const LabelSource& source_;
  std::vector<LabelTask> tasks_;
  Undescribed undescribed_;
  LabelSkips skips_;
  std::optional<StoredLayer> layer_;
  std::map<int, std::vector<std::int64_t>>::const_iterator at_layer_;
  std::size_t at_feature_ = 0;
  std::vector<LabelQuestion> questions_;  // of one feature
  std::size_t at_question_ = 0;
};

}  // namespace tadapt
