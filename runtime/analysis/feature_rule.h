// FeatureRule: which features are meant, as an expression over what was collected of them.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/analysis/feature_store.h"
#include "runtime/bundle/feature_set.h"

namespace tadapt {

/// What a rule is asked about.
struct RuleSubject {
  const FeatureStore& store;
  FileSystem& files;
  std::filesystem::path directory;  ///< where relative names of files start
};

/// One of the operations above, on a layer: by place in StoredLayer, whether the feature is meant.
class FeatureRule {
 public:
  struct Layer {
    const StoredLayer& stored;
    const StoredTokens& tokens;
    const FeatureStoreDescription& store;
  };
  virtual ~FeatureRule() = default;
  virtual std::vector<bool> of(const Layer& layer) const = 0;
};

struct NamedRule {
  std::string name;  ///< of the set
  std::string rule;
  int promoted_tokens = 0;  ///< K of promotes() where the rule gives none; 0: promoted_tokens_of(the vocabulary)
};

struct ParsedRule {
  std::unique_ptr<FeatureRule> rule;
  std::string text;  ///< the rule with every K in it, and names written out
};

/// The language of rules:
///
///   rule       = product { ("|" | "-") product }        union, difference; from left to right
///   product    = factor { "&" factor }                   intersection
///   factor     = "(" rule ")" | name "(" arguments ")" | name
///
///   promotes(WORD…, top=K)        one of the words (stripped, lower-cased) is among the K tokens promoted most;
///                                 K: 10 of a vocabulary of 152,064, in proportion for others, at least 1
///   template(share=0.8)           that share of the top examples stands at a template position: BOS, markers of user
///                                 and assistant, <think>, the line break after it, the first token of the text
///   region(NAME, share=0.5)       that share of the activations is in the region
///   domain(NAME, share=0.5)       … in conversations of the domain
///   active(from=0, to=1)          active on at least / at most that share of the tokens, and on one at least
///   class(CLASS…, labels=FILE)    a judge put it into one of the classes ("reasoning", "reasoning/hesitation"), by a
///                                 file of labels
///   influence(WORD…, graphs=DIR, share=0.01)  of the influence that features have on the words as next tokens, in the
///                                 attribution graphs of a folder, it has that share
///   set(FILE)                     a set that was saved
///   control(RULE, seed=0, times=1)  a control for a rule: of each layer as many features, drawn from those that were
///                                 active at all and that the rule leaves out
///   hesitation-output, hesitation-template, hesitation  the paper's rules
///
/// ConfigError naming the place in the rule, what was expected and what is there. Sets, labels and graphs are read
/// here, with their errors.
ParsedRule parse_feature_rule(const NamedRule& rule, const RuleSubject& subject);

/// The features that a rule means.
struct Selection {
  FeatureSet set;
  std::int64_t live = 0;          ///< those of them that were active at all
  double active_per_token = 0.0;  ///< of them, on the mean token of the corpus
};

/// What each rule means; every layer is read once.
std::vector<Selection> select_features(const std::vector<NamedRule>& rules, const RuleSubject& subject);

/// K of promotes() when none is given.
int promoted_tokens_of(std::int64_t vocabulary);

/// The rules of the paper: features that promote hesitation words, features of the template, and both.
inline constexpr char kHesitationOutput[] = "promotes(wait hmm but alternatively)";
inline constexpr char kHesitationTemplate[] = "template(share=0.8)";
inline constexpr char kHesitation[] = "promotes(wait hmm but alternatively) | template(share=0.8)";

}  // namespace tadapt
