// In which order rows are visited: sample number -> row, a pure function of (seed, epoch, index).
#pragma once

#include <cstdint>
#include <vector>

namespace tadapt {

/// Sample numbers run on over epochs: sample n is index n mod N of epoch n / N, and every epoch visits each of the N
/// rows exactly once. Whoever asks gets the same answer, on any number of ranks.
class DataOrder {
 public:
  /// Rows are cut into windows of `window_rows` consecutive rows (the last may be shorter), visited in order; inside a
  /// window they are shuffled (Fisher-Yates) by (seed, epoch, window). Serves caches and streams alike.
  static DataOrder window(std::int64_t rows, std::int64_t window_rows, std::uint64_t seed);
  /// A bijection of all rows, different in each (seed, epoch): a Feistel network over the least power of two that holds
  /// N, walked until it lands inside. Constant memory; needs random access, so caches only.
  static DataOrder global(std::int64_t rows, std::uint64_t seed);

  std::int64_t rows() const { return rows_; }
  bool is_global() const { return window_rows_ == 0; }
  std::int64_t window_rows() const { return window_rows_; }  ///< 0 under `global`
  std::int64_t epoch(std::int64_t sample) const { return sample / rows_; }

  /// Rows of samples [begin, end).
  std::vector<std::int64_t> rows_of(std::int64_t begin, std::int64_t end) const;

  /// End of the run of samples starting at `begin` that is best read together: the rest of its window; under `global`
  /// `batch_rows` samples, but not past the epoch.
  std::int64_t block_end(std::int64_t begin, std::int64_t batch_rows) const;

 private:
  DataOrder(std::int64_t rows, std::int64_t window_rows, std::uint64_t seed);
  void append_window_rows(std::int64_t begin, std::int64_t end, std::vector<std::int64_t>& out) const;

  std::int64_t rows_;
  std::int64_t window_rows_;  // 0: global
  std::uint64_t seed_;
};

}  // namespace tadapt
