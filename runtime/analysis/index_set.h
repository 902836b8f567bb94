// IndexSet: which of many numbered things are done, as ranges.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace tadapt {

/// Numbers as disjoint ranges [begin, end) in ascending order, none touching another.
class IndexSet {
 public:
  using Range = std::pair<std::int64_t, std::int64_t>;

  void add(std::int64_t begin, std::int64_t end);
  void add(const IndexSet& other);
  std::int64_t size() const;
  bool overlaps(const IndexSet& other) const;
  const std::vector<Range>& ranges() const { return ranges_; }
  /// What is missing of [0, total), in pieces of at most `most`.
  std::vector<Range> missing(std::int64_t total, std::int64_t most) const;

  /// "0-64,128-130"; DataError naming `source` when a text is none.
  std::string to_text() const;
  static IndexSet from_text(const std::string& text, const std::string& source);

 private:
  std::vector<Range> ranges_;
};

}  // namespace tadapt
