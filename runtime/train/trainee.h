// Trainee: the trainer's unit of work; a run is a list of them, runs side by side a longer list.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime/adapter/adapter.h"
#include "runtime/loss/local_loss.h"

namespace tadapt {

/// One adapter being trained: of which run and layer, with which loss, and what is known of its features. Its
/// parameters live in the ParameterStore under the trainee's index.
struct Trainee {
  std::string name;  ///< "layer-003": its files in a checkpoint are called so
  int layer = 0;     ///< of the model
  int run = 0;       ///< of those that are trained side by side
  std::uint64_t seed = 0;
  LocalLoss loss;
  std::unique_ptr<Adapter> adapter;
  std::vector<std::int64_t> tokens_since_active;  ///< [F], over the tokens trained on

  /// Takes over one batch's counts ([F] fp32, summed over the whole batch).
  void count_activity(std::span<const float> active_counts, std::int64_t batch_tokens);
  /// Share of features not active in the last `tokens` tokens trained on.
  double dead_share(std::int64_t tokens) const;
};

/// "layer-003".
std::string trainee_name(int layer);

}  // namespace tadapt
