// BridgingReport: what the ranks of a grid tell each other at the end of a bridging step, and what it adds up to.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "runtime/comm/communicator.h"
#include "runtime/comm/process_grid.h"

namespace tadapt {

/// Sums over this rank's leaves, as the reduction tree joins them. Those of terms that another rank knows are 0.
struct BridgingSums {
  double kl_adapter = 0.0, kl_a2r = 0.0, kl_r2a = 0.0, label = 0.0;  ///< over tokens
  std::vector<double> residual_nmse;                                 ///< by residual state, over sequences
  double layer_passes = 0.0;                                         ///< of one leaf
};

/// Of one trainee.
struct TraineeReport {
  double weighted_activations = 0.0;  ///< a sum over leaves
  double active_pairs = 0.0;          ///< of the whole batch
  double gradient_norm = 0.0;
  double dead_share = 0.0;
  int bad_tensor = -1;  ///< place of the first parameter whose gradient, as far as the rank knows it, is not finite
};

/// The same on every rank, and the same bits on every grid.
class BridgingReport {
 public:
  struct Rank {
    bool stop = false;  ///< was a stop asked for
    BridgingSums sums;
    std::vector<TraineeReport> trainees;  ///< those of the rank's block
  };
  /// Collective. `states`: L + 1.
  BridgingReport(Communicator& world, const ProcessGrid& grid, int states, const Rank& mine, const std::string& what);

  /// Numbers that each rank contributes.
  static std::size_t shared_fields(std::size_t states, std::size_t most_layers);

  bool stop() const { return stop_; }
  const BridgingSums& sums() const { return sums_; }                        ///< over all leaves
  double residual_nmse() const;                                             ///< over all states
  const std::vector<TraineeReport>& trainees() const { return trainees_; }  ///< of the run, layer after layer

 private:
  bool stop_ = false;
  BridgingSums sums_;
  std::vector<TraineeReport> trainees_;
};

}  // namespace tadapt
