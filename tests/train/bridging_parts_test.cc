// Ranks that run parts of the bridging pass, by layers and by branches, against one that runs all of it.
#include <array>

#include "runtime/loss/stage_traffic.h"
#include "runtime/train/bridging_step.h"
#include "runtime/train/grid_link.h"
#include "tests/adapters/bridging_fixture.h"
#include "tests/support/thread_communicator.h"

namespace tadapt {
namespace {

using testing::BridgingFixture;
using testing::Gradients;

constexpr int kLayers = 3;

struct Case {
  GridShape grid;
  Backbone backbone;
};

std::string name_of(const Case& one) {
  return fmt::format("{}blocks_{}branches_{}", one.grid.blocks, one.grid.branch_parallel,
                     one.backbone == Backbone::kBase ? "base" : "target");
}

/// Ranks are threads here; on a device, where each is a process, tests/system/device_training_test.py compares them.
class BridgingParts : public ::testing::TestWithParam<Case> {};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const Backbone backbone : {Backbone::kTarget, Backbone::kBase})
    for (const GridShape grid : {GridShape{3, 1, 1}, GridShape{2, 1, 1}, GridShape{1, 1, 2}, GridShape{2, 1, 2}})
      all.push_back({grid, backbone});
  return all;
}

INSTANTIATE_TEST_SUITE_P(Grids, BridgingParts, ::testing::ValuesIn(cases()),
                         [](const auto& one) { return name_of(one.param); });

void add(const BridgingValue& one, BridgingValue& sum) {
  sum.kl_adapter += one.kl_adapter;
  sum.kl_a2r += one.kl_a2r;
  sum.kl_r2a += one.kl_r2a;
  sum.label += one.label;
  sum.residual_nmse.resize(one.residual_nmse.size());
  for (std::size_t state = 0; state < one.residual_nmse.size(); ++state)
    sum.residual_nmse[state] += one.residual_nmse[state];
}

/// What the ranks of a grid give together, added as the reduction tree does.
struct Together {
  BridgingValue value;
  Gradients gradients = Gradients(kLayers);
  std::vector<double> weighted_activations = std::vector<double>(kLayers);
  std::int64_t layer_passes = 0;

  void add_rank(const BridgingFixture::Outcome& one, LayerSpan layers) {
    add(one.value, value);
    layer_passes += one.layer_passes;
    for (int layer = layers.begin; layer < layers.end; ++layer) {
      const auto at = static_cast<std::size_t>(layer);
      weighted_activations[at] += one.value.weighted_activations[static_cast<std::size_t>(layer - layers.begin)];
      gradients[at].resize(one.gradients[at].size());
      for (std::size_t i = 0; i < gradients[at].size(); ++i) gradients[at][i] += one.gradients[at][i];
    }
  }
};

TEST_P(BridgingParts, TogetherHaveTheBitsOfTheWhole) {
  const auto& [shape, backbone] = GetParam();
  const TokenBatch batch = testing::batch_of(testing::bridging_cases().at("sequences"));
  const BridgingWeights weights{.label = 0.3, .sparsity = 0.01};
  const ProcessGrid grid(shape, {0, 1, 2});
  for (const std::vector<int>& cutoffs : {std::vector{0}, std::vector{1}, std::vector{2}, std::vector{3},
                                          std::vector{0, 1, 2, 3}, std::vector{2, 2, 1}}) {
    SCOPED_TRACE(fmt::format("cutoffs {}", fmt::join(cutoffs, ",")));
    BridgingFixture alone(Device::kCpu);
    const BridgingFixture::Outcome whole = alone.run(batch, cutoffs, weights, backbone);
    std::vector<BridgingFixture::Outcome> ranks(static_cast<std::size_t>(grid.ranks()));
    const std::vector<std::uint64_t> sent = testing::run_ranks(grid.ranks(), [&](Communicator& world) {
      BridgingFixture fixture(Device::kCpu);
      GridLink link(fixture.context(), world, grid);
      const BridgingPart part = part_of_rank(grid, world.rank(), kLayers);
      ranks[static_cast<std::size_t>(world.rank())] =
          fixture.run_part(batch, cutoffs, weights, backbone, {.part = part, .link = &link});
      std::vector<std::size_t> expected;
      for (int layer = part.layers.end; layer-- > part.layers.begin;)
        expected.push_back(static_cast<std::size_t>(layer));
      EXPECT_EQ(fixture.filled(), expected) << "rank " << world.rank();
    });
    const std::int64_t state_bytes = 4 * batch.tokens() * alone.pair().config().width;
    const BridgingSchedule schedule(kLayers, backbone, cutoffs);
    for (int rank = 0; rank < grid.ranks(); ++rank)
      EXPECT_EQ(sent[static_cast<std::size_t>(rank)],
                static_cast<std::uint64_t>(state_bytes * states_sent(schedule, part_of_rank(grid, rank, kLayers))))
          << "rank " << rank;
    Together together;
    for (int rank = 0; rank < grid.ranks(); ++rank)
      together.add_rank(ranks[static_cast<std::size_t>(rank)], part_of_rank(grid, rank, kLayers).layers);
    EXPECT_EQ(together.gradients, whole.gradients);
    EXPECT_EQ(together.value.kl_adapter, whole.value.kl_adapter);
    EXPECT_EQ(together.value.kl_a2r, whole.value.kl_a2r);
    EXPECT_EQ(together.value.kl_r2a, whole.value.kl_r2a);
    EXPECT_EQ(together.value.label, whole.value.label);
    EXPECT_EQ(together.value.residual_nmse, whole.value.residual_nmse);
    EXPECT_EQ(together.weighted_activations, whole.value.weighted_activations);
    EXPECT_EQ(together.layer_passes, whole.layer_passes);
  }
}

}  // namespace
}  // namespace tadapt
