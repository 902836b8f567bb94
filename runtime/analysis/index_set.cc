#include "runtime/analysis/index_set.h"

#include <algorithm>
#include <sstream>

#include "data/json.h"
#include "kernels/core/error.h"

namespace tadapt {

void IndexSet::add(std::int64_t begin, std::int64_t end) {
  if (begin >= end) return;
  const auto first = std::ranges::lower_bound(ranges_, begin, {}, &Range::second);
  auto last = first;
  for (; last != ranges_.end() && last->first <= end; ++last) {
    begin = std::min(begin, last->first);
    end = std::max(end, last->second);
  }
  ranges_.insert(ranges_.erase(first, last), {begin, end});
}

void IndexSet::add(const IndexSet& other) {
  for (const auto& [begin, end] : other.ranges_) add(begin, end);
}

std::int64_t IndexSet::size() const {
  std::int64_t size = 0;
  for (const auto& [begin, end] : ranges_) size += end - begin;
  return size;
}

bool IndexSet::overlaps(const IndexSet& other) const {
  IndexSet both = *this;
  both.add(other);
  return both.size() < size() + other.size();
}

std::vector<IndexSet::Range> IndexSet::missing(std::int64_t total, std::int64_t most) const {
  std::vector<Range> pieces;
  std::int64_t at = 0;
  const auto cut = [&](std::int64_t end) {
    for (; at < end; at = std::min(end, at + most)) pieces.emplace_back(at, std::min(end, at + most));
  };
  for (const auto& [begin, end] : ranges_) {
    cut(std::min(begin, total));
    at = std::max(at, end);
  }
  cut(total);
  return pieces;
}

std::string IndexSet::to_text() const {
  std::string text;
  for (const auto& [begin, end] : ranges_) text += fmt::format("{}{}-{}", text.empty() ? "" : ",", begin, end);
  return text;
}

IndexSet IndexSet::from_text(const std::string& text, const std::string& source) {
  IndexSet set;
  std::istringstream stream(text);
  for (std::string range; std::getline(stream, range, ',');) {
    std::istringstream numbers(range);
    std::int64_t begin = 0, end = 0;
    char dash = 0;
    if (!(numbers >> begin >> dash >> end) || dash != '-' || begin < 0 || begin >= end || !(numbers >> std::ws).eof())
      throw DataError("{}: expected ranges such as 0-64,128-130, found {}", source, in_quotes(text));
    set.add(begin, end);
  }
  return set;
}

}  // namespace tadapt
