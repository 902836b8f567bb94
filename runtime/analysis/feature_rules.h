// The single rules of the language of feature_rule.h.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime/analysis/feature_rule.h"

namespace tadapt {

using RulePointer = std::unique_ptr<FeatureRule>;

RulePointer promotes_rule(std::vector<std::string> words, int top);
RulePointer template_rule(double share);
RulePointer region_rule(Region region, double share);
RulePointer domain_rule(std::int32_t domain, double share);
RulePointer active_rule(double from, double to);
/// The errors of require_set_fits; `source` is the set's.
RulePointer set_rule(FeatureSet set, const FeatureStore& store, const std::string& source);
RulePointer control_rule(RulePointer rule, std::uint64_t seed, double times);

enum class Combination { kUnion, kDifference, kIntersection };
RulePointer combined_rule(RulePointer left, Combination how, RulePointer right);

/// Without white space around it, ASCII letters in lower case.
std::string plain_word(std::string_view text);
/// Whether two such words are the same.
bool is_one_of(const std::vector<std::string>& words, std::string_view text);

}  // namespace tadapt
