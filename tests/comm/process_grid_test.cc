// Which grids exist, which one is chosen, and who holds what.
#include "runtime/comm/process_grid.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "kernels/core/error.h"

namespace tadapt {
namespace {
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

double fewest_layers_per_rank(GridShape shape) { return 1.0 / shape.data_parallel; }

std::string refusal(const GridRequest& request) {
  try {
    choose_grid(request, fewest_layers_per_rank);
  } catch (const ConfigError& error) {
    EXPECT_EQ(error.code(), ExitCode::kBadConfig);
    return error.what();
  }
  return "accepted";
}

TEST(ValidGrids, AreExactlyTheFactorisationsTheRulesAllow) {
  for (int ranks = 1; ranks <= 70; ++ranks) {
    for (const int layers : {1, 2, 4, 7, 28}) {
      std::set<std::pair<int, int>> expected;
      for (int blocks = 1; blocks <= layers; ++blocks) {
        for (const int group : {1, 2, 4, 8}) {
          if (blocks * group == ranks) expected.emplace(blocks, group);
        }
      }
      std::set<std::pair<int, int>> found;
      for (const auto& shape : valid_grids({.ranks = ranks, .layers = layers, .leaves = 8})) {
        found.emplace(shape.blocks, shape.data_parallel);
      }
      EXPECT_EQ(found, expected) << ranks << " ranks, " << layers << " layers";
    }
  }
}

TEST(ValidGrids, GiveTwoRanksToTheBranchesOnlyWhereEachPartIsOneLeaf) {
  GridRequest request{.ranks = 8, .layers = 4, .leaves = 2, .branch_parallel = 0};
  EXPECT_THAT(valid_grids(request), ElementsAre(GridShape{4, 2, 1}, GridShape{2, 2, 2}));
  request.branch_parallel = 2;
  EXPECT_THAT(valid_grids(request), ElementsAre(GridShape{2, 2, 2}));
  request.ranks = 6;
  EXPECT_THAT(valid_grids(request), ::testing::IsEmpty());
  EXPECT_THAT(refusal(request), AllOf(HasSubstr("grid.branch_parallel 2"), HasSubstr("nearest usable: 4, 8")));
  request.branch_parallel = 1;
  EXPECT_THAT(valid_grids(request), ElementsAre(GridShape{3, 2, 1}));
}

TEST(ChooseGrid, TakesTheCheapestAndFewerBlocksOnATie) {
  const GridRequest request{.ranks = 8, .layers = 8, .leaves = 8};
  EXPECT_EQ(choose_grid(request, [](GridShape shape) { return std::abs(shape.blocks - 4.0); }), (GridShape{4, 2}));
  EXPECT_EQ(choose_grid(request, [](GridShape) { return 1.0; }), (GridShape{1, 8}));
}

TEST(ChooseGrid, HonoursWhatWasAskedFor) {
  EXPECT_EQ(choose_grid({.ranks = 8, .layers = 8, .layer_blocks = 2}, fewest_layers_per_rank), (GridShape{2, 4}));
  EXPECT_EQ(choose_grid({.ranks = 8, .layers = 8, .data_parallel = 1}, fewest_layers_per_rank), (GridShape{8, 1}));
  EXPECT_EQ(choose_grid({.ranks = 3, .layers = 4}, fewest_layers_per_rank), (GridShape{3, 1}));
  EXPECT_EQ(choose_grid({.ranks = 1, .layers = 1}, fewest_layers_per_rank), (GridShape{1, 1}));
}

TEST(ChooseGrid, RefusesWithTheNearestRankCounts) {
  EXPECT_THAT(refusal({.ranks = 5, .layers = 4}), AllOf(HasSubstr("5 ranks"), HasSubstr("nearest usable: 4, 6")));
  EXPECT_THAT(refusal({.ranks = 100, .layers = 4}), HasSubstr("nearest usable: 32"));
  EXPECT_THAT(refusal({.ranks = 3, .layers = 2}), HasSubstr("nearest usable: 2, 4"));
  EXPECT_THAT(refusal({.ranks = 2, .layers = 1, .leaves = 1}), HasSubstr("nearest usable: 1"));
  EXPECT_THAT(refusal({.ranks = 7, .layers = 4, .layer_blocks = 3}),
              AllOf(HasSubstr("grid.layer_blocks 3"), HasSubstr("nearest usable: 6, 12")));
  EXPECT_THAT(refusal({.ranks = 4, .layers = 4, .layer_blocks = 3, .data_parallel = 2}),
              AllOf(HasSubstr("grid.data_parallel 2"), HasSubstr("nearest usable: 6")));
}

TEST(ChooseGrid, NamesTheKeyThatIsWrong) {
  EXPECT_THAT(refusal({.ranks = 4, .layers = 4, .layer_blocks = 5}), HasSubstr("grid.layer_blocks is 5"));
  EXPECT_THAT(refusal({.ranks = 4, .layers = 4, .layer_blocks = -1}), HasSubstr("grid.layer_blocks is -1"));
  EXPECT_THAT(refusal({.ranks = 3, .layers = 4, .data_parallel = 3}), HasSubstr("grid.data_parallel is 3"));
  EXPECT_THAT(refusal({.ranks = 16, .layers = 4, .leaves = 8, .data_parallel = 16}),
              HasSubstr("train.reduction_leaves (8)"));
  EXPECT_THAT(refusal({.ranks = 1, .layers = 0}), HasSubstr("0 layers"));
}

TEST(ProcessGrid, CutsLayersIntoContiguousBalancedBlocks) {
  for (int layers = 1; layers <= 30; ++layers) {
    for (int blocks = 1; blocks <= layers; ++blocks) {
      std::vector<int> subset(static_cast<std::size_t>(layers)), joined;
      for (int i = 0; i < layers; ++i) subset[static_cast<std::size_t>(i)] = 3 * i + 1;
      const ProcessGrid grid({blocks, 2}, subset);
      std::vector<std::size_t> sizes;
      for (int block = 0; block < blocks; ++block) {
        const auto part = grid.layers_of_block(block);
        sizes.push_back(part.size());
        joined.insert(joined.end(), part.begin(), part.end());
        for (const int layer : part) EXPECT_EQ(grid.block_of_layer(layer), block);
      }
      EXPECT_EQ(joined, subset);
      EXPECT_LE(*std::max_element(sizes.begin(), sizes.end()) - *std::min_element(sizes.begin(), sizes.end()), 1u);
      EXPECT_EQ(static_cast<int>(*std::max_element(sizes.begin(), sizes.end())), largest_block(layers, blocks));
    }
  }
}

/// Against all ways to cut the list.
TEST(ProcessGrid, CutsByCostSoThatTheDearestBlockIsCheapest) {
  const std::vector<double> costs{3, 1, 4, 1, 5, 9, 2, 6, 5};
  std::vector<int> layers(costs.size());
  std::iota(layers.begin(), layers.end(), 0);
  const auto dearest = [&](const std::vector<std::size_t>& borders) {
    double most = 0;
    for (std::size_t i = 1; i < borders.size(); ++i)
      most = std::max(most, std::accumulate(costs.begin() + static_cast<std::ptrdiff_t>(borders[i - 1]),
                                            costs.begin() + static_cast<std::ptrdiff_t>(borders[i]), 0.0));
    return most;
  };
  for (int blocks = 1; blocks <= static_cast<int>(costs.size()); ++blocks) {
    const ProcessGrid grid({blocks, 1}, layers, costs);
    std::vector<std::size_t> found{0};
    std::size_t most_layers = 0;
    for (int block = 0; block < blocks; ++block) {
      const std::size_t size = grid.layers_of_block(block).size();
      EXPECT_GE(size, 1u);
      found.push_back(found.back() + size);
      most_layers = std::max(most_layers, size);
    }
    EXPECT_EQ(found.back(), costs.size());
    EXPECT_EQ(grid.most_layers(), most_layers);
    double best = 1e9;
    for (unsigned cuts = 0; cuts < 1u << (costs.size() - 1); ++cuts) {
      std::vector<std::size_t> borders{0};
      for (std::size_t i = 1; i < costs.size(); ++i)
        if (cuts >> (i - 1) & 1u) borders.push_back(i);
      borders.push_back(costs.size());
      if (static_cast<int>(borders.size()) == blocks + 1) best = std::min(best, dearest(borders));
    }
    EXPECT_EQ(dearest(found), best) << blocks;
  }
  EXPECT_THROW(ProcessGrid({2, 1}, layers, {1.0}), ShapeError);
}

TEST(ProcessGrid, MakesNeighboursOfAGroup) {
  const ProcessGrid grid({3, 2}, {0, 3, 5, 6});
  EXPECT_EQ(grid.ranks(), 6);
  EXPECT_THAT(grid.layers_of_block(0), ElementsAre(0, 3));
  EXPECT_THAT(grid.layers_of_block(1), ElementsAre(5));
  EXPECT_THAT(grid.layers_of_block(2), ElementsAre(6));
  for (int rank = 0; rank < 6; ++rank) EXPECT_EQ(grid.rank_of(grid.block_of(rank), grid.index_of(rank)), rank);
  EXPECT_EQ(grid.block_of(3), 1);
  EXPECT_EQ(grid.index_of(3), 1);
  EXPECT_THROW(grid.block_of_layer(4), ShapeError);
  EXPECT_THROW(ProcessGrid({3, 1}, {0, 1}), ShapeError);
  EXPECT_EQ((GridShape{3, 1}).to_string(), "3 layer blocks x 1 data-parallel rank");
}

TEST(ProcessGrid, MakesNeighboursOfAPair) {
  const ProcessGrid grid({.blocks = 2, .data_parallel = 2, .branch_parallel = 2}, {0, 1, 2});
  EXPECT_EQ(grid.ranks(), 8);
  EXPECT_EQ(grid.group_size(), 4);
  std::vector<int> blocks, parts, branches;
  for (int rank = 0; rank < grid.ranks(); ++rank) {
    blocks.push_back(grid.block_of(rank));
    parts.push_back(grid.part_of(rank));
    branches.push_back(grid.branch_of(rank));
    EXPECT_EQ(grid.rank_of(grid.block_of(rank), grid.index_of(rank)), rank);
  }
  EXPECT_THAT(blocks, ElementsAre(0, 0, 0, 0, 1, 1, 1, 1));
  EXPECT_THAT(parts, ElementsAre(0, 0, 1, 1, 0, 0, 1, 1));
  EXPECT_THAT(branches, ElementsAre(0, 1, 0, 1, 0, 1, 0, 1));
  EXPECT_EQ(grid.shape().to_string(), "2 layer blocks x 2 data-parallel ranks x 2 branches");
}

}  // namespace
}  // namespace tadapt
