// Window shuffles and Feistel bijections over row numbers.
#include "data/row_order.h"

#include <algorithm>
#include <array>
#include <bit>
#include <numeric>

#include "kernels/core/error.h"
#include "kernels/core/random.h"

namespace tadapt {
namespace {
constexpr std::int64_t kMostRows = std::int64_t{1} << 40;
constexpr std::int64_t kMostWindowRows = std::int64_t{1} << 31;  // draws are numbered with 32 bits
/// The "window" whose draws key the global order; no window has this number.
constexpr std::uint64_t kGlobalSample = (std::uint64_t{1} << 48) - 1;

/// Alternating Feistel network over [0, 2^bits), the two halves as equal as they can be.
class FeistelBijection {
 public:
  FeistelBijection(std::int64_t rows, std::uint64_t seed, std::uint64_t epoch)
      : rows_(static_cast<std::uint64_t>(rows)), bits_(std::bit_width(rows_ - 1)) {
    const RandomStream stream(seed, RandomPurpose::kDataOrder, epoch, kGlobalSample);
    for (std::size_t round = 0; round < keys_.size(); ++round) {
      keys_[round] = stream.bits64(static_cast<std::uint32_t>(round));
    }
  }

  /// Walks along the permutation's cycle until it is back inside [0, rows): again a bijection.
  std::int64_t operator()(std::int64_t index) const {
    auto value = static_cast<std::uint64_t>(index);
    do value = permuted(value);
    while (value >= rows_);
    return static_cast<std::int64_t>(value);
  }

 private:
  static std::uint64_t low(std::uint64_t value, int bits) { return value & ((std::uint64_t{1} << bits) - 1); }

  /// MurmurHash3's 64-bit finaliser.
  static std::uint64_t mixed(std::uint64_t value) {
    value = (value ^ (value >> 33)) * 0xff51afd7ed558ccdull;
    value = (value ^ (value >> 33)) * 0xc4ceb9fe1a85ec53ull;
    return value ^ (value >> 33);
  }

  std::uint64_t permuted(std::uint64_t value) const {
    int left_bits = bits_ / 2, right_bits = bits_ - left_bits;
    std::uint64_t left = value >> right_bits, right = low(value, right_bits);
    for (const std::uint64_t key : keys_) {
      const std::uint64_t changed = left ^ low(mixed(right ^ key), left_bits);
      left = right;
      right = changed;
      std::swap(left_bits, right_bits);
    }
    return left << right_bits | right;
  }

  std::uint64_t rows_;
  int bits_;
  std::array<std::uint64_t, 6> keys_{};  // an even number of rounds: the halves end as wide as they began
};

/// rows [first, first + count) in the order of one (seed, epoch, window).
std::vector<std::int64_t> shuffled_window(std::int64_t first, std::int64_t count, const RandomStream& stream) {
  std::vector<std::int64_t> rows(static_cast<std::size_t>(count));
  std::iota(rows.begin(), rows.end(), first);
  for (std::uint64_t i = rows.size(); i > 1; --i) {
    std::swap(rows[i - 1], rows[stream.below(static_cast<std::uint32_t>(i - 1), i)]);
  }
  return rows;
}
}  // namespace

DataOrder::DataOrder(std::int64_t rows, std::int64_t window_rows, std::uint64_t seed)
    : rows_(rows), window_rows_(window_rows), seed_(seed) {
  if (rows < 1 || rows > kMostRows) throw ConfigError("data order: {} rows, allowed 1 to {}", rows, kMostRows);
}

DataOrder DataOrder::window(std::int64_t rows, std::int64_t window_rows, std::uint64_t seed) {
  if (window_rows < 1 || window_rows > kMostWindowRows) {
    throw ConfigError("data order: windows of {} rows, allowed 1 to {}", window_rows, kMostWindowRows);
  }
  return DataOrder(rows, window_rows, seed);
}

DataOrder DataOrder::global(std::int64_t rows, std::uint64_t seed) { return DataOrder(rows, 0, seed); }

std::int64_t DataOrder::block_end(std::int64_t begin, std::int64_t batch_rows) const {
  const std::int64_t index = begin % rows_;
  const std::int64_t index_end = is_global() ? index + batch_rows : (index / window_rows_ + 1) * window_rows_;
  return begin - index + std::min(index_end, rows_);
}

void DataOrder::append_window_rows(std::int64_t begin, std::int64_t end, std::vector<std::int64_t>& out) const {
  const std::int64_t index = begin % rows_, window = index / window_rows_, first = window * window_rows_;
  const RandomStream stream(seed_, RandomPurpose::kDataOrder, static_cast<std::uint64_t>(epoch(begin)),
                            static_cast<std::uint64_t>(window));
  const auto rows = shuffled_window(first, std::min(window_rows_, rows_ - first), stream);
  const auto from = rows.begin() + (index - first);
  out.insert(out.end(), from, from + (end - begin));
}

std::vector<std::int64_t> DataOrder::rows_of(std::int64_t begin, std::int64_t end) const {
  require_shape(0 <= begin && begin <= end, "samples [{}, {})", begin, end);
  std::vector<std::int64_t> out;
  out.reserve(static_cast<std::size_t>(end - begin));
  while (begin < end) {
    const std::int64_t stop = std::min(end, block_end(begin, end - begin));
    if (is_global()) {
      const FeistelBijection row(rows_, seed_, static_cast<std::uint64_t>(epoch(begin)));
      for (std::int64_t sample = begin; sample < stop; ++sample) out.push_back(row(sample % rows_));
    } else {
      append_window_rows(begin, stop, out);
    }
    begin = stop;
  }
  return out;
}

}  // namespace tadapt
