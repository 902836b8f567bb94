// Which positions of a sequence a capture keeps: a function of options, seed, sequence number and length alone.
#pragma once

#include <cstdint>
#include <vector>

namespace tadapt {

struct RowChoice {
  std::int64_t max_tokens = 0;            ///< rows kept in all, counted in sequence order; 0: no limit
  std::int64_t tokens_per_sequence = 0;   ///< drawn without replacement from each sequence; 0: all
  std::int64_t drop_first_positions = 0;  ///< never kept
  std::uint64_t seed = 0;
};

/// Positions kept of one sequence, ascending; max_tokens is not looked at.
std::vector<std::int32_t> chosen_positions(const RowChoice& choice, std::int64_t sequence, std::int64_t length);

}  // namespace tadapt
