// How many cases the randomised tests run, from which seed, and how they say what came of it.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <cstdlib>
#include <string>

namespace tadapt::testing {

/// `quick` times $TADAPT_CAMPAIGN (1 when unset): 10 gives ten times the cases.
inline std::int64_t campaign_cases(std::int64_t quick) {
  const char* factor = std::getenv("TADAPT_CAMPAIGN");
  return quick * (factor != nullptr ? std::strtoll(factor, nullptr, 10) : 1);
}

/// $TADAPT_CAMPAIGN_SEED, or 1.
inline std::uint64_t campaign_seed() {
  const char* seed = std::getenv("TADAPT_CAMPAIGN_SEED");
  return seed != nullptr ? std::strtoull(seed, nullptr, 10) : 1;
}

/// "R3: damage named, previous used: 400/400 (seed 1)": the line that tools/reliability collects.
inline void tell_campaign(const std::string& row, const std::string& what, std::int64_t good, std::int64_t cases) {
  fmt::print("{}: {}: {}/{} (seed {})\n", row, what, good, cases, campaign_seed());
}

}  // namespace tadapt::testing
