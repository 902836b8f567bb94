// How causal attention is cut into blocks of a launch. Included by attention's device code only.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "kernels/core/cuda.cuh"

namespace tadapt::cuda {

inline constexpr int kMostHeadSize = 256;

struct AttentionSizes {
  int heads, groups, size;
  __host__ __device__ int heads_per_group() const { return heads / groups; }
  __host__ __device__ int group_of(int head) const { return head / heads_per_group(); }
};

/// Query rows [begin, end) of the sequence that starts at row `start`; a block takes them for one head.
struct QueryTile {
  std::int32_t start, begin, end;
};

/// Key rows [begin, end) of the sequence that ends before row `stop`; a block takes them for one group.
struct KeyTile {
  std::int32_t begin, end, stop;
};

/// The tiles of one launch. They travel with its parameters, 4 KB at most, so that nothing has to be brought to the
/// device before it.
template <class Tile>
struct Tiles {
  static constexpr std::size_t kMost = 320;
  Tile tiles[kMost];
};
using QueryTiles = Tiles<QueryTile>;
using KeyTiles = Tiles<KeyTile>;

/// All tiles of `rows` rows, counted from each sequence's start; those with most keys first, so that none of them
/// begins when the device is about to run out of work.
inline std::vector<QueryTile> query_tiles(std::span<const std::int32_t> offsets, std::int32_t rows) {
  std::vector<QueryTile> tiles;
  for (std::size_t b = 0; b + 1 < offsets.size(); ++b) {
    for (std::int32_t begin = offsets[b]; begin < offsets[b + 1]; begin += rows)
      tiles.push_back({offsets[b], begin, std::min(begin + rows, offsets[b + 1])});
  }
  const auto keys = [](const QueryTile& tile) { return tile.end - tile.start; };
  std::ranges::stable_sort(tiles, std::ranges::greater(), keys);
  return tiles;
}

/// The same of keys; those that most queries see first.
inline std::vector<KeyTile> key_tiles(std::span<const std::int32_t> offsets, std::int32_t rows) {
  std::vector<KeyTile> tiles;
  for (std::size_t b = 0; b + 1 < offsets.size(); ++b) {
    for (std::int32_t begin = offsets[b]; begin < offsets[b + 1]; begin += rows)
      tiles.push_back({begin, std::min(begin + rows, offsets[b + 1]), offsets[b + 1]});
  }
  const auto queries = [](const KeyTile& tile) { return tile.stop - tile.begin; };
  std::ranges::stable_sort(tiles, std::ranges::greater(), queries);
  return tiles;
}

/// Starts `kernel`(input, tiles) for all tiles, `each` blocks a tile: block b takes tile b / each and the head or group
/// b % each, so that heads that share keys run side by side. `grid` but for the number of blocks.
template <class Tile, class Input>
void launch_tiles(Context& context, Grid grid, const std::vector<Tile>& tiles, int each,
                  void (*kernel)(Input, Tiles<Tile>), const Input& input) {
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(grid.shared_bytes)),
        "cudaFuncSetAttribute");
  for (std::size_t first = 0; first < tiles.size(); first += Tiles<Tile>::kMost) {
    const std::size_t count = std::min(Tiles<Tile>::kMost, tiles.size() - first);
    Tiles<Tile> some{};
    std::copy_n(tiles.begin() + static_cast<std::ptrdiff_t>(first), count, some.tiles);
    grid.blocks = static_cast<std::int64_t>(count) * each;
    launch(context, "causal_attention", grid, kernel, input, some);
  }
}

}  // namespace tadapt::cuda
