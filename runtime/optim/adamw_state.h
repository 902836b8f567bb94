// The AdamW optimiser over a ParameterStore or parts of it: it owns the two moments and the sums behind the norm.
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

/// Of all trainable numbers, or of a part of each group where other ranks have the others.
class AdamWState {
 public:
  /// Of these parts, one a group, any of which may have no elements; of everything when no parts are named.
  AdamWState(Device device, const ParameterStore& store, const std::vector<ParameterPart>& parts = {});

  /// Whether parts were named.
  bool sharded() const { return sharded_; }
  ParameterPart part(std::size_t group) const { return states_.at(group).part; }

  /// Σ g² over each 4096-element block of the group's whole trainable gradient: what update() reads. Filled by whoever
  /// makes the gradient, or by measure(), which knows the blocks of the part.
  Tensor square_sums(std::size_t group) const { return states_.at(group).square_sums.tensor(); }
  void measure(Context& context, const ParameterStore& store, std::size_t group);

  /// Norm over the group's trainable gradient (the square sums, added in block order), clip by
  /// min(1, clip_norm / (norm + 1e-6)), then AdamW on the part; it reads no gradient but the part's, and leaves the
  /// masters outside the part as they are. `step` counts from 0. A non-finite norm changes nothing.
  UpdateReport update(Context& context, ParameterStore& store, std::size_t group, const AdamWSettings& settings,
                      double learning_rate, std::int64_t step);

  /// [elements of the part] fp32.
  Tensor first_moment(std::size_t group) const { return states_.at(group).first.tensor(); }
  Tensor second_moment(std::size_t group) const { return states_.at(group).second.tensor(); }

 private:
  struct State {
    ParameterPart part;
    Buffer first, second, square_sums;
  };
  std::vector<State> states_;
  bool sharded_;
};

}  // namespace tadapt
