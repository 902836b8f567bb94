// Estimates against numbers worked out by hand, and the grids that `auto` takes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/core/error.h"
#include "runtime/plan/estimate.h"
#include "runtime/plan/grid_cost.h"

namespace tadapt {
namespace {
using ::testing::HasSubstr;

constexpr std::int64_t kWidth7b = 3584, kFeatures7b = 8192;

TEST(Estimate, ParametersOfTheSevenBillionShape) {
  EXPECT_EQ(transcoder_parameters(kWidth7b, kFeatures7b), 58'732'032);
  EXPECT_EQ(28 * transcoder_parameters(kWidth7b, kFeatures7b), 1'644'496'896);
  EXPECT_EQ(transcoder_parameters(2, 3), 2 * 6 + 3 + 2);
}

TEST(Estimate, MemoryOfTheSevenBillionShape) {
  const auto all = estimate_memory({.width = kWidth7b,
                                    .features = kFeatures7b,
                                    .layers_in_block = 28,
                                    .data_parallel = 1,
                                    .leaves = 8,
                                    .batch_tokens = 16384,
                                    .loader_bytes = 59'190'018'048,
                                    .compute = DType::kBFloat16});
  EXPECT_EQ(all.frozen_weights, 0);
  EXPECT_EQ(all.master, 6'577'987'584);
  EXPECT_EQ(all.moments, 13'155'975'168);
  EXPECT_EQ(all.gradients, 6'577'987'584);
  EXPECT_EQ(all.working_copy, 6'576'668'672);  // 28 · 4 · 3584 · 8192 · 2
  EXPECT_EQ(all.leaf_buffers, 704'784'384);    // 3 levels of 58,732,032 floats
  EXPECT_EQ(all.batch, 163'577'856);           // 2048 · (2 · 8192 + 3584) · 4
  EXPECT_EQ(all.total(),
            all.master + all.moments + all.gradients + all.working_copy + all.leaf_buffers + all.batch + all.loader);
  EXPECT_THAT(all.to_string(), HasSubstr("moments 13.2 GB"));
}

TEST(Estimate, MemoryOfOneRankOfAGrid) {
  const auto part = estimate_memory({.width = 2,
                                     .features = 3,
                                     .layers_in_block = 5,
                                     .data_parallel = 4,
                                     .leaves = 8,
                                     .batch_tokens = 80,
                                     .compute = DType::kFloat32,
                                     .frozen_parameters = 7});
  EXPECT_EQ(part.frozen_weights, 28);
  EXPECT_EQ(part.master, 5 * 17 * 4);
  EXPECT_EQ(part.working_copy, 5 * 18 * 4);
  EXPECT_EQ(part.leaf_buffers, 17 * 4);
  EXPECT_EQ(part.batch, 10 * 8 * 4);
  EXPECT_EQ(part.loader, 0);
}

TEST(Estimate, MomentsAreShared) {
  MemoryRequest request{.width = 2, .features = 3, .layers_in_block = 5, .data_parallel = 4, .batch_tokens = 80};
  const MemoryEstimate whole = estimate_memory(request);
  EXPECT_EQ(whole.moments, 5 * 17 * 8);
  request.state_shards = request.writers = 4;
  request.held_for_checkpoint = 12;
  const MemoryEstimate shared = estimate_memory(request);
  EXPECT_EQ(shared.moments, 5 * 17 * 2);
  EXPECT_EQ(shared.held, 2 * 17 * 12);  // of 5 layers one rank writes 2
  EXPECT_EQ(whole.on_device() - shared.on_device(), 5 * 17 * 6);
  EXPECT_EQ(whole.total() - shared.total(), 5 * 17 * 6 - 2 * 17 * 12);
  EXPECT_EQ(whole.held, 0);
}

TEST(Estimate, Checkpoints) {
  const std::int64_t one = checkpoint_bytes(28, kWidth7b, kFeatures7b);
  EXPECT_EQ(one, 12ll * 1'644'496'896 + 8ll * 229'376);
  EXPECT_EQ(checkpoints_on_disk_bytes(one, 2), 3 * one);
}

TEST(Estimate, ReadableBytes) {
  EXPECT_EQ(readable_bytes(0), "0 B");
  EXPECT_EQ(readable_bytes(999), "999 B");
  EXPECT_EQ(readable_bytes(1000), "1.00 KB");
  EXPECT_EQ(readable_bytes(29'600'944'128), "29.6 GB");
  EXPECT_EQ(readable_bytes(999'999), "1.00 MB");
  EXPECT_EQ(readable_bytes(401'408), "401 KB");
  EXPECT_EQ(readable_bytes(4'000'000'000'000), "4.00 TB");
}

TEST(GridCost, IsTheDocumentedFormula) {
  const StepWork work{.layers = 5, .width = 2, .features = 3, .batch_tokens = 80};
  const MachineRates rates{.flops_per_second = 10,
                           .memory_bytes_per_second = 17,
                           .exchange_bytes_per_second = 4,
                           .seconds_per_message = 0.5};
  // One rank: 5 · 10 · 80 · 2 · 3 / 10 of compute, 5 · 17 · 34 / 17 of update.
  EXPECT_DOUBLE_EQ(step_seconds(work, rates, {1, 1}), 2400.0 + 170.0);
  // Blocks of 3 and 2, pairs: compute 3 · 480 / 2 = 720, exchange per layer 17 + 1.
  EXPECT_DOUBLE_EQ(step_seconds(work, rates, {2, 2}), 720.0 + 102.0 + 18.0);
  // A slow network: 3 · 17000 of exchange outlast the compute.
  MachineRates slow = rates;
  slow.exchange_bytes_per_second = 0.004;
  EXPECT_DOUBLE_EQ(step_seconds(work, slow, {2, 2}), 3 * 17001.0 + 102.0 + 17001.0);
}

// H100s with NVLink between the ranks of a group, rounded.
constexpr MachineRates kGpus{.flops_per_second = 4e14,
                             .memory_bytes_per_second = 2.5e12,
                             .exchange_bytes_per_second = 3e11,
                             .seconds_per_message = 1e-5};

GridShape chosen(int ranks, int layers, const MachineRates& rates, std::int64_t batch_tokens = 16384) {
  return choose_grid({.ranks = ranks, .layers = layers, .leaves = 8},
                     {.layers = layers, .width = kWidth7b, .features = kFeatures7b, .batch_tokens = batch_tokens},
                     rates);
}

TEST(GridCost, AutoBalancesBlocksAgainstExchange) {
  // 24 blocks of 28 layers leave four ranks with 2 layers and twenty with 1: two layers' work. Blocks of 5 layers
  // shared by 4 ranks take 1.25, as blocks of 10 shared by 8 do, with half of their exchange and update.
  EXPECT_EQ(chosen(24, 28, kGpus), (GridShape{6, 4}));
  EXPECT_EQ(chosen(24, 28, MachineRates{}), (GridShape{6, 4}));
  // No exchange at all where the layers divide evenly.
  EXPECT_EQ(chosen(28, 28, kGpus), (GridShape{28, 1}));
  EXPECT_EQ(chosen(4, 4, MachineRates{}), (GridShape{4, 1}));
  EXPECT_EQ(chosen(2, 4, MachineRates{}), (GridShape{2, 1}));
  // More ranks than layers.
  EXPECT_EQ(chosen(8, 4, MachineRates{}), (GridShape{4, 2}));
  EXPECT_EQ(chosen(224, 28, kGpus), (GridShape{28, 8}));
  EXPECT_EQ(chosen(3, 4, MachineRates{}), (GridShape{3, 1}));
}

TEST(GridCost, SlowerNetworksMakeSmallerGroups) {
  MachineRates slow = kGpus;
  slow.exchange_bytes_per_second = 5e10;
  EXPECT_EQ(chosen(24, 28, slow), (GridShape{12, 2}));
  slow.exchange_bytes_per_second = 1e8;
  EXPECT_EQ(chosen(24, 28, slow, 1024), (GridShape{24, 1}));
}

}  // namespace
}  // namespace tadapt
