#include "runtime/train/bridging_report.h"

#include <algorithm>

#include "runtime/comm/reduction_tree.h"

namespace tadapt {
namespace {

enum Field : std::size_t { kStop, kKlAdapter, kKlA2r, kKlR2a, kLabel, kLayerPasses, kFields };
enum TraineeField : std::size_t {
  kWeightedActivations,
  kActivePairs,
  kGradientNorm,
  kDeadShare,
  kBadTensor,
  kTraineeFields
};

}  // namespace

std::size_t BridgingReport::shared_fields(std::size_t states, std::size_t most_layers) {
  return kFields + states + kTraineeFields * most_layers;
}

BridgingReport::BridgingReport(Communicator& world, const ProcessGrid& grid, int states, const Rank& mine,
                               const std::string& what) {
  const std::size_t of_trainees = kFields + static_cast<std::size_t>(states);
  const std::size_t per_rank = shared_fields(static_cast<std::size_t>(states), grid.most_layers());
  std::vector<double> fields(per_rank, 0.0);
  fields[kStop] = mine.stop ? 1.0 : 0.0;
  fields[kKlAdapter] = mine.sums.kl_adapter;
  fields[kKlA2r] = mine.sums.kl_a2r;
  fields[kKlR2a] = mine.sums.kl_r2a;
  fields[kLabel] = mine.sums.label;
  fields[kLayerPasses] = mine.sums.layer_passes;
  std::ranges::copy(mine.sums.residual_nmse, fields.begin() + kFields);
  for (std::size_t i = 0; i < mine.trainees.size(); ++i) {
    double* trainee = &fields[of_trainees + i * kTraineeFields];
    trainee[kWeightedActivations] = mine.trainees[i].weighted_activations;
    trainee[kActivePairs] = mine.trainees[i].active_pairs;
    trainee[kGradientNorm] = mine.trainees[i].gradient_norm;
    trainee[kDeadShare] = mine.trainees[i].dead_share;
    trainee[kBadTensor] = mine.trainees[i].bad_tensor;
  }
  const std::vector<double> all = world.all_gather(fields, what);

  const auto field = [&](int block, int index, std::size_t which) {
    return all[static_cast<std::size_t>(grid.rank_of(block, index)) * per_rank + which];
  };
  const auto joined_of_block = [&](int block, std::size_t which) {
    std::vector<double> ranks;
    for (int index = 0; index < grid.group_size(); ++index) ranks.push_back(field(block, index, which));
    return join_leaves(ranks);
  };
  // One block knows a term, and so does one rank of a pair, as good as always: the others add 0, which changes no bit.
  const auto joined = [&](std::size_t which) {
    double sum = 0.0;
    for (int block = 0; block < grid.blocks(); ++block) sum += joined_of_block(block, which);
    return sum;
  };
  for (int rank = 0; rank < grid.ranks(); ++rank)
    stop_ = stop_ || all[static_cast<std::size_t>(rank) * per_rank + kStop] > 0.0;
  sums_ = {.kl_adapter = joined(kKlAdapter),
           .kl_a2r = joined(kKlA2r),
           .kl_r2a = joined(kKlR2a),
           .label = joined(kLabel),
           .residual_nmse = {},
           .layer_passes = 0.0};
  for (int state = 0; state < states; ++state)
    sums_.residual_nmse.push_back(joined(kFields + static_cast<std::size_t>(state)));
  for (int block = 0; block < grid.blocks(); ++block) {
    for (int index = 0; index < grid.branch_parallel(); ++index)
      sums_.layer_passes += field(block, index, kLayerPasses);
    for (std::size_t place = 0; place < grid.layers_of_block(block).size(); ++place) {
      const std::size_t at = of_trainees + place * kTraineeFields;
      TraineeReport one{.weighted_activations = joined_of_block(block, at + kWeightedActivations),
                        .active_pairs = field(block, 0, at + kActivePairs),
                        .gradient_norm = field(block, 0, at + kGradientNorm),
                        .dead_share = field(block, 0, at + kDeadShare)};
      for (int index = 0; index < grid.group_size(); ++index) {
        const int bad = static_cast<int>(field(block, index, at + kBadTensor));
        if (bad >= 0 && (one.bad_tensor < 0 || bad < one.bad_tensor)) one.bad_tensor = bad;
      }
      trainees_.push_back(one);
    }
  }
}

double BridgingReport::residual_nmse() const {
  double sum = 0.0;
  for (const double state : sums_.residual_nmse) sum += state;
  return sum;
}

}  // namespace tadapt
