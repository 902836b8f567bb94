// What CPU loops share: compilation for several instruction sets, and sums in one order on all of them.
#pragma once

#include <cstdint>

/// A function compiled once per instruction set, chosen when the program is loaded. No contraction is allowed in this
/// build (-ffp-contract=off), so every clone computes the same bits. What it calls must be inlined to take part:
/// TADAPT_INLINE. Without FMA hardware std::fma is the library's: slow, and the same bits. clang, which builds the fuzz
/// targets, leaves inline functions out that only the clones call: there is one function there.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define TADAPT_VECTORISED __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define TADAPT_VECTORISED
#endif
#define TADAPT_INLINE [[gnu::always_inline]] inline

namespace tadapt {

/// Σ term(i), 0 <= i < n, in double: 16 interleaved partial sums, then joined in halves. One order everywhere.
template <class Term>
TADAPT_INLINE double ordered_sum(std::int64_t n, Term term) {
  constexpr std::int64_t kLanes = 16;
  double lanes[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += term(i + lane);
  }
  for (std::int64_t lane = 0; i < n; ++i, ++lane) lanes[lane] += term(i);
  for (std::int64_t width = kLanes / 2; width > 0; width /= 2) {
    for (std::int64_t lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
  }
  return lanes[0];
}

}  // namespace tadapt
