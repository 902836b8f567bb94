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

/// One update, the same for all groups.
struct AdamWUpdate {
  double learning_rate = 0.0;
  std::int64_t step = 0;        ///< counts from 0
  double gradient_scale = 1.0;  ///< what clipping multiplies gradients by
};

/// min(1, clip_norm / (norm + 1e-6)), or 1 without clipping: as torch.nn.utils.clip_grad_norm_.
double clip_scale(const AdamWSettings& settings, double gradient_norm);

/// Of all trainable numbers, or of a part of each group where other ranks have the others.
class AdamWState {
 public:
  /// Of these parts, one a group, any of which may have no elements; of everything when no parts are named.
  AdamWState(Device device, const ParameterStore& store, const std::vector<ParameterPart>& parts = {});

  /// Whether parts were named.
  bool sharded() const { return sharded_; }
  ParameterPart part(std::size_t group) const { return states_.at(group).part; }

  /// Σ g² over each 4096-element block of the group's whole trainable gradient: what square_norm() adds up. Filled by
  /// whoever makes the gradient, or by measure(), which knows the blocks of the part.
  Tensor square_sums(std::size_t group) const { return states_.at(group).square_sums.tensor(); }
  void measure(Context& context, const ParameterStore& store, std::size_t group);

  /// Σ g² over the group's trainable gradient: the square sums, added in block order. Waits for the device.
  double square_norm(Context& context, std::size_t group) const;

  /// AdamW on the part; it reads no gradient but the part's, and leaves the masters outside the part as they are.
  void update(Context& context, ParameterStore& store, std::size_t group, const AdamWSettings& settings,
              const AdamWUpdate& update);

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
