// How many cases the randomised tests run, and from which seed.
#pragma once

#include <cstdint>
#include <cstdlib>

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

}  // namespace tadapt::testing
