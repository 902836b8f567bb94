// ProcessGrid: which rank trains which layers, and with whom it shares the tokens of a batch.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace tadapt {

/// P = blocks · data_parallel ranks.
struct GridShape {
  int blocks = 1;         ///< B: the layers are cut into this many contiguous parts
  int data_parallel = 1;  ///< G: ranks that hold the same layers and share each batch
  friend bool operator==(const GridShape&, const GridShape&) = default;
  std::string to_string() const;  ///< "3 layer blocks x 8 data-parallel ranks"
};

/// What a grid must satisfy: B · G = ranks, B <= layers, G a power of two that divides leaves.
struct GridRequest {
  int ranks = 1;
  int layers = 1;           ///< how many layers are trained (any subset of the model's)
  std::int64_t leaves = 8;  ///< train.reduction_leaves
  int layer_blocks = 0;     ///< asked for; 0: auto
  int data_parallel = 0;    ///< asked for; 0: auto
};

/// Layers in the largest block.
int largest_block(int layers, int blocks);

/// All shapes that satisfy the request, fewest blocks first; may be empty.
std::vector<GridShape> valid_grids(const GridRequest& request);

/// The valid shape with the least `step_seconds` (the one with fewer blocks on a tie). ConfigError when there is none:
/// names the reason and the nearest usable rank counts.
GridShape choose_grid(const GridRequest& request, const std::function<double(GridShape)>& step_seconds);

/// One grid over chosen layers. Rank r is member r % G of block r / G, so a group's ranks are neighbours.
class ProcessGrid {
 public:
  /// `layers`: the trained layers of the model in ascending order.
  ProcessGrid(GridShape shape, std::vector<int> layers);

  int ranks() const { return shape_.blocks * shape_.data_parallel; }
  int blocks() const { return shape_.blocks; }
  int data_parallel() const { return shape_.data_parallel; }
  GridShape shape() const { return shape_; }
  const std::vector<int>& layers() const { return layers_; }

  int block_of(int rank) const { return rank / shape_.data_parallel; }
  int index_of(int rank) const { return rank % shape_.data_parallel; }  ///< place in its data-parallel group
  int rank_of(int block, int index) const { return block * shape_.data_parallel + index; }
  /// Contiguous part of the layers list; sizes differ by at most one, larger blocks first.
  std::vector<int> layers_of_block(int block) const;
  int block_of_layer(int layer) const;

 private:
  GridShape shape_;
  std::vector<int> layers_;
};

}  // namespace tadapt
