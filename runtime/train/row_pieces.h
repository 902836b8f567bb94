// RowPieces: consecutive rows in equal pieces that the members of a group take in turn.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace tadapt {

/// Rows [begin, end) in pieces of `piece_rows`; the last may be shorter.
struct RowPieces {
  std::int64_t begin = 0, end = 0;
  std::int64_t piece_rows = 1;

  std::int64_t rows() const { return end - begin; }
  std::int64_t count() const { return (rows() + piece_rows - 1) / piece_rows; }
  std::int64_t first_row(std::int64_t piece) const { return begin + piece * piece_rows; }
  std::int64_t rows_of(std::int64_t piece) const { return std::min(piece_rows, end - first_row(piece)); }
  /// Which of a group's members has this piece.
  static int member(std::int64_t piece, int members) { return static_cast<int>(piece % members); }

  /// Pieces that no member exceeds.
  std::int64_t most_pieces_of_one(int members) const { return (count() + members - 1) / members; }
  std::int64_t most_rows_of_one(int members) const {
    return std::min(rows(), most_pieces_of_one(members) * piece_rows);
  }
  /// The member that has each row.
  std::vector<int> owners(int members) const {
    std::vector<int> owners;
    for (std::int64_t row = 0; row < rows(); ++row) owners.push_back(member(row / piece_rows, members));
    return owners;
  }
};

}  // namespace tadapt
