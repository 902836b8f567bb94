// ProcessGrid: which rank trains which layers, and with whom it shares the tokens of a batch.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace tadapt {

/// P = blocks · data_parallel · branch_parallel ranks.
struct GridShape {
  int blocks = 1;         ///< B: the layers are cut into this many contiguous parts
  int data_parallel = 1;  ///< G: parts into which each batch is shared out
  /// 2: a part has two ranks, one of which runs the target and what leaves it, the other the adapter model and what
  /// leaves that.
  int branch_parallel = 1;
  int ranks() const { return blocks * data_parallel * branch_parallel; }
  int group_size() const { return data_parallel * branch_parallel; }  ///< ranks that hold the same layers
  friend bool operator==(const GridShape&, const GridShape&) = default;
  std::string to_string() const;  ///< "3 layer blocks x 8 data-parallel ranks", " x 2 branches" where there are
};

/// What a grid must satisfy: B · G · branches = ranks, B <= layers, G a power of two that divides leaves; two ranks for
/// the branches only where each part of a batch is one leaf, so that every leaf's gradient is the pair's sum.
struct GridRequest {
  int ranks = 1;
  int layers = 1;           ///< how many layers are trained (any subset of the model's)
  std::int64_t leaves = 8;  ///< train.reduction_leaves
  int layer_blocks = 0;     ///< asked for; 0: auto
  int data_parallel = 0;    ///< asked for; 0: auto
  int branch_parallel = 1;  ///< asked for; 0: auto
};

/// Layers in the largest block, without costs.
int largest_block(int layers, int blocks);

/// All shapes that satisfy the request, fewest blocks first; may be empty.
std::vector<GridShape> valid_grids(const GridRequest& request);

/// The valid shape with the least `step_seconds` (the one with fewer blocks on a tie). ConfigError when there is none:
/// names the reason and the nearest usable rank counts.
GridShape choose_grid(const GridRequest& request, const std::function<double(GridShape)>& step_seconds);

/// One grid over chosen layers. A group are the ranks of one block, which are neighbours; within it those that share a
/// part of the batch are.
class ProcessGrid {
 public:
  /// `layers`: the trained layers of the model in ascending order; `costs`: what each of them takes of a step, in any
  /// unit; empty: all the same.
  ProcessGrid(GridShape shape, std::vector<int> layers, const std::vector<double>& costs = {});

  int ranks() const { return shape_.ranks(); }
  int blocks() const { return shape_.blocks; }
  int data_parallel() const { return shape_.data_parallel; }
  int branch_parallel() const { return shape_.branch_parallel; }
  int group_size() const { return shape_.group_size(); }
  GridShape shape() const { return shape_; }
  const std::vector<int>& layers() const { return layers_; }

  int block_of(int rank) const { return rank / group_size(); }
  int index_of(int rank) const { return rank % group_size(); }                       ///< place in its group
  int part_of(int rank) const { return index_of(rank) / shape_.branch_parallel; }    ///< of the batch
  int branch_of(int rank) const { return index_of(rank) % shape_.branch_parallel; }  ///< place in its pair
  int rank_of(int block, int index) const { return block * group_size() + index; }
  /// Contiguous part of the layers list. Without costs sizes differ by at most one, larger blocks first; with costs the
  /// dearest block is as cheap as can be.
  std::vector<int> layers_of_block(int block) const;
  std::size_t most_layers() const;  ///< of a block
  int block_of_layer(int layer) const;

 private:
  GridShape shape_;
  std::vector<int> layers_;
  std::vector<std::size_t> borders_;  ///< where blocks begin in the list, and its end
};

}  // namespace tadapt
