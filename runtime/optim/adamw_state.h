// The AdamW optimiser over a ParameterStore: it owns the two moments, nothing else.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/parameters/parameter_store.h"

namespace tadapt {

struct AdamWSettings {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0.0;
  double clip_norm = 0.0;  ///< 0: no clipping
};

/// What one update of a group found.
struct UpdateReport {
  double gradient_norm = 0.0;  ///< before clipping
  bool finite = true;          ///< false: nothing was changed
};

class AdamWState {
 public:
  AdamWState(Device device, const ParameterStore& store);

  /// Norm over the group's trainable gradient (double partials over 4096-element blocks, added in block order), clip
  /// by min(1, clip_norm / (norm + 1e-6)), then AdamW. `step` counts from 0. A non-finite norm changes nothing.
  UpdateReport update(Context& context, ParameterStore& store, std::size_t group, const AdamWSettings& settings,
                      double learning_rate, std::int64_t step);

  Tensor first_moment(std::size_t group) const { return moments_.at(group).first.tensor(); }
  Tensor second_moment(std::size_t group) const { return moments_.at(group).second.tensor(); }

 private:
  struct Moments {
    Buffer first, second;
  };
  std::vector<Moments> moments_;
  Buffer block_sums_;
};

}  // namespace tadapt
