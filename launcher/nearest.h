// The known word a mistyped one was probably meant to be.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace tadapt {

/// Levenshtein distance in bytes; O(|a|·|b|) time.
int edit_distance(std::string_view a, std::string_view b);

/// The candidate with the smallest edit distance to `word` (the first of several); empty when there are no candidates.
/// A beginning of a candidate is one edit away from it. A dotted candidate is also tried without its section, so
/// "batch_tokens" finds "train.batch_tokens".
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace tadapt
