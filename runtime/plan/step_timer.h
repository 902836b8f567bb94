// Timing one leaf of the local objective at a chosen density: what calibration and benchmarks measure. No run does.
#pragma once

#include <cstdint>
#include <memory>

#include "runtime/loss/local_loss.h"

namespace tadapt {

struct StepSetting {
  AdapterShape shape;
  std::int64_t tokens = 0;  ///< of the leaf
  DType compute = DType::kBFloat16;
};

/// An adapter with random weights whose features are active on a given share of random tokens, and a leaf of them.
class StepTimer {
 public:
  /// `sparse_below` as in AdapterCompute: 0 is always dense.
  StepTimer(Context& context, const StepSetting& setting, double sparse_below);

  /// Makes about this many features active per token. Weights and inputs are uniform, so pre-activations are normal
  /// with variance 1/9 about the encoder's bias, which is set to fit.
  void set_l0(double l0);
  /// Seconds of one forward, loss and backward.
  double seconds();
  /// Features that were active per token in the last one.
  double l0() const;

 private:
  Context& context_;
  std::unique_ptr<Adapter> adapter_;
  ParameterStore store_;
  Buffer x_, delta_, value_;
  LocalLossPass pass_;
  ParameterTensors masters_;
};

double median(std::vector<double> values);
/// z with P(N(0, 1) > z) = share.
double upper_quantile(double share);

/// Active features per token at which the dense and the sparse route take equally long here; 0 when the sparse one is
/// never faster, F when it always is. Medians of interleaved runs, some seconds to minutes.
double measure_break_even(Context& context, const StepSetting& setting);

}  // namespace tadapt
