// Byte-pair encoding of one word: merges the adjacent pair of lowest rank until none is left.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace tadapt {

/// The learned part of a tokenizer.
struct BytePairVocabulary {
  struct Merge {
    std::int32_t left, right, merged;  ///< token ids
  };
  std::array<std::int32_t, 256> byte_ids{};             ///< token of each single byte, −1 where there is none
  std::vector<Merge> merges;                            ///< in order of rank; of a pair listed twice the last counts
  std::unordered_map<std::string, std::int32_t> words;  ///< words that are tokens whatever the merges say
};

/// What one thread needs to merge: memory kept from word to word, and the short words met last.
class BytePairSpace {
 public:
  BytePairSpace() : recent_(kRecentWords) {}

 private:
  friend class BytePairEncoder;
  static constexpr std::size_t kRecentWords = 1 << 14;
  static constexpr std::size_t kWordBytes = 31;
  static constexpr std::size_t kWordIds = 7;
  struct Recent {
    std::array<char, kWordBytes> word;
    std::uint8_t bytes = 0;  // 0: unused
    std::array<std::int32_t, kWordIds> ids;
    std::int32_t count = 0;
  };
  struct Symbol {
    std::int32_t id, previous, next;  // id −1: merged into its left neighbour
  };
  struct Candidate {
    std::int32_t rank, position, merged;
  };
  std::vector<Recent> recent_;
  std::vector<Symbol> symbols_;
  std::vector<Candidate> heap_;
};

/// Immutable, so threads may share it.
class BytePairEncoder {
 public:
  explicit BytePairEncoder(BytePairVocabulary vocabulary);

  /// Appends the ids of `word` (any bytes, at most 2³¹ − 1): O(n log n). False, with nothing appended, when a byte of
  /// it has no token.
  bool encode(std::string_view word, BytePairSpace& space, std::vector<std::int32_t>& ids) const;

 private:
  struct Entry {
    std::uint64_t pair;
    std::int32_t rank, merged;
  };
  const Entry* find(std::int32_t left, std::int32_t right) const;
  bool merge(std::string_view word, BytePairSpace& space, std::vector<std::int32_t>& ids) const;
  void push(BytePairSpace& space, std::int32_t position) const;
  void merge_all(BytePairSpace& space) const;

  std::array<std::int32_t, 256> byte_ids_;
  std::unordered_map<std::string, std::int32_t> words_;
  std::vector<Entry> table_;  // open addressing, a power of two
};

}  // namespace tadapt
