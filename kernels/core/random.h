// Counter-based random numbers: a draw is a function of (seed, purpose, step, sample, index) and of nothing else.
#pragma once

#include <array>
#include <cstdint>

#include "kernels/core/bfloat16.h"

namespace tadapt {

__extension__ typedef unsigned __int128 uint128;

/// What a draw is for. Numbers are part of the on-disk contract (resume, other rank counts): append, never renumber.
enum class RandomPurpose : std::uint32_t {
  kInitialWeights = 1,   ///< step 0, sample = layer, index = element
  kDataOrder = 2,        ///< step = epoch, sample = window
  kTokenSubsample = 3,   ///< step 0, sample = sequence
  kCutoff = 4,           ///< step = step, sample = draw within the step
  kGeneration = 5,       ///< step = position, sample = sample number
  kBootstrap = 6,        ///< step = resample, sample 0
  kExamples = 7,         ///< step = layer · 2^32 + feature, sample = sequence, index = position
  kNeurons = 8,          ///< step 0, sample = layer
  kControlFeatures = 9,  ///< step = layer, sample = feature
  kContrast = 10,        ///< step 0, sample = sequence, index = position
  kLabelFeatures = 11,   ///< step = layer, sample = feature
  kLabelTexts = 12,      ///< step = layer · 2^32 + feature, sample = 0: silent texts, 1: their order; index = text
  kRetries = 13,         ///< step = attempt, sample = hash of what is tried
  kTest = 1000,
};

/// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): four 32-bit words.
TADAPT_HOST_DEVICE inline std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                                                  std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = 0xD2511F53ull * counter[0];
    const std::uint64_t product1 = 0xCD9E8D57ull * counter[2];
    counter = {static_cast<std::uint32_t>(product1 >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(product1),
               static_cast<std::uint32_t>(product0 >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(product0)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

/// A stream of draws for one (seed, purpose, step, sample). `index` is 32 bits wide, step and sample 48 and 48.
class RandomStream {
 public:
  TADAPT_HOST_DEVICE RandomStream(std::uint64_t seed, RandomPurpose purpose, std::uint64_t step, std::uint64_t sample)
      : key_{static_cast<std::uint32_t>(seed) ^ (static_cast<std::uint32_t>(purpose) * 0x9E3779B9u),
             static_cast<std::uint32_t>(seed >> 32) ^ static_cast<std::uint32_t>((step >> 32) << 16 | sample >> 32)},
        step_(static_cast<std::uint32_t>(step)),
        sample_(static_cast<std::uint32_t>(sample)),
        purpose_(static_cast<std::uint32_t>(purpose)) {}

  TADAPT_HOST_DEVICE std::array<std::uint32_t, 4> words(std::uint32_t index) const {
    return philox4x32({index, step_, sample_, purpose_}, key_);
  }
  TADAPT_HOST_DEVICE std::uint64_t bits64(std::uint32_t index) const {
    const auto w = words(index);
    return static_cast<std::uint64_t>(w[0]) << 32 | w[1];
  }
  /// Uniform in [0, 1), 24 bits.
  TADAPT_HOST_DEVICE float uniform(std::uint32_t index) const {
    return static_cast<float>(words(index)[0] >> 8) * 0x1p-24f;
  }
  /// Uniform integer in [0, bound), without bias that matters: 64 random bits times bound, upper half.
  TADAPT_HOST_DEVICE std::uint64_t below(std::uint32_t index, std::uint64_t bound) const {
    return static_cast<std::uint64_t>((static_cast<uint128>(bits64(index)) * bound) >> 64);
  }

 private:
  std::array<std::uint32_t, 2> key_;
  std::uint32_t step_, sample_, purpose_;
};

}  // namespace tadapt
