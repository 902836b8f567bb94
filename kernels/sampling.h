// Drawing a next token from logits: temperature, top-p, first choice. The same tokens for the same logits on any
// device.
#pragma once

#include "kernels/core/backends.h"
#include "kernels/core/exponential.h"
#include "kernels/core/random.h"

namespace tadapt {

struct SamplingRule {
  float temperature = 1.0f;  ///< 0: the first choice always
  double top_p = 1.0;        ///< (0, 1]: draws among the most probable tokens that together have this much
};

/// A token's weight as an integer: a sum of these is the same in any order, on any device.
struct TokenWeight {
  float largest, temperature;
  /// floor(2^40 · e^((logit − largest) / temperature))
  TADAPT_HOST_DEVICE std::uint64_t operator()(float logit) const {
    return static_cast<std::uint64_t>(exponential((logit - largest) / temperature) * 0x1p40f);
  }
};

/// The weight that most probable tokens together must reach: the least integer that is at least top_p · total.
TADAPT_HOST_DEVICE inline std::uint64_t needed_weight(std::uint64_t total, double top_p) {
  const double exact = static_cast<double>(total) * top_p;
  const auto floor = static_cast<std::uint64_t>(exact);
  const std::uint64_t least = static_cast<double>(floor) < exact ? floor + 1 : floor;
  return least < 1 ? 1 : (least < total ? least : total);
}

/// Tokens heavier than `weight`, and the first `ties` of those that weigh as much; `total` of all of them.
struct Nucleus {
  std::uint64_t weight = 0, ties = 0, total = 0;
};

/// The nucleus whose heavier tokens weigh `heavier` together.
TADAPT_HOST_DEVICE inline Nucleus nucleus_of(std::uint64_t weight, std::uint64_t heavier, std::uint64_t needed) {
  const std::uint64_t ties = (needed - heavier + weight - 1) / weight;
  return {weight, ties, heavier + ties * weight};
}

/// bits · total / 2^64: uniform below `total` for uniform bits.
TADAPT_HOST_DEVICE inline std::uint64_t scaled_draw(std::uint64_t bits, std::uint64_t total) {
  return static_cast<std::uint64_t>((static_cast<uint128>(bits) * total) >> 64);
}

TADAPT_BACKENDS(void sample_tokens(Context& context, const Tensor& logits, const Tensor& draws,
                                   const SamplingRule& rule, const Tensor& tokens);)

/// tokens_r ~ softmax(logits_r / temperature), cut to its nucleus: tokens in order of probability (of equal ones the
/// lower id first) until they have top_p together.
///   logits  [R, V] float32, 0 < V <= 2^23, read only
///   draws   [R] int64, read only: 64 uniformly random bits each; not looked at with temperature 0
///   tokens  [R] int32, overwritten; −1 where a logit is NaN or +infinity, or all are −infinity
/// Weights are fp32 exponentials, floored to multiples of 2^-40 of the largest and summed as integers; the draw walks
/// the nucleus in order of ids. So a row depends on itself and its draw only, and equal logits give equal tokens on
/// every device. Of equal largest logits temperature 0 takes the lowest id. ShapeError for a temperature below 0 or a
/// top_p outside (0, 1]. Source of top-p: Holtzman et al., "The Curious Case of Neural Text Degeneration", 2020.
/// Oracle: sorting, in double.
void sample_tokens(Context& context, const Tensor& logits, const Tensor& draws, const SamplingRule& rule,
                   const Tensor& tokens);

}  // namespace tadapt
