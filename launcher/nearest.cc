#include "launcher/nearest.h"

#include <algorithm>
#include <numeric>

namespace tadapt {

int edit_distance(std::string_view a, std::string_view b) {
  std::vector<int> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (std::size_t i = 0; i < a.size(); ++i) {
    int diagonal = row[0];
    row[0] = static_cast<int>(i) + 1;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const int substituted = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({substituted, row[j] + 1, diagonal + 1});
    }
  }
  return row.back();
}

std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
  word = word.substr(0, 100);  // quadratic time: the beginning of a hostile word says enough
  const auto edits = [&](std::string_view candidate) {
    const bool is_beginning = candidate.size() > word.size() && candidate.starts_with(word);
    return is_beginning ? 1 : edit_distance(word, candidate);
  };
  const auto distance = [&](std::string_view candidate) {
    const std::size_t dot = candidate.find('.');
    const int whole = edits(candidate);
    return dot == candidate.npos ? whole : std::min(whole, edits(candidate.substr(dot + 1)));
  };
  const auto best = std::ranges::min_element(candidates, {}, distance);
  return best == candidates.end() ? "" : *best;
}

}  // namespace tadapt
