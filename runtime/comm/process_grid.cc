// Which grids there are, which is cheapest, and who holds which layers.
#include "runtime/comm/process_grid.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <limits>

#include "kernels/core/error.h"

namespace tadapt {
namespace {

constexpr int kMostBranches = 2;

bool usable_group(std::int64_t data_parallel, std::int64_t leaves) {
  return data_parallel >= 1 && std::has_single_bit(static_cast<std::uint64_t>(data_parallel)) &&
         leaves % data_parallel == 0;
}

bool is_valid(const GridRequest& request, GridShape shape) {
  return shape.ranks() == request.ranks && shape.blocks >= 1 && shape.blocks <= request.layers &&
         usable_group(shape.data_parallel, request.leaves) &&
         (request.layer_blocks == 0 || request.layer_blocks == shape.blocks) &&
         (request.data_parallel == 0 || request.data_parallel == shape.data_parallel) &&
         (request.branch_parallel == 0 || request.branch_parallel == shape.branch_parallel) &&
         (shape.branch_parallel == 1 || shape.data_parallel == request.leaves);
}

bool has_grid(GridRequest request, int ranks) {
  request.ranks = ranks;
  return ranks >= 1 && !valid_grids(request).empty();
}

/// The nearest usable rank counts below and above, in words.
std::string nearest_counts(const GridRequest& request) {
  std::vector<int> counts;
  for (int ranks = request.ranks - 1; ranks >= 1 && counts.empty(); --ranks) {
    if (has_grid(request, ranks)) counts.push_back(ranks);
  }
  const int branches = request.branch_parallel == 1 ? 1 : kMostBranches;
  const std::int64_t most = std::min<std::int64_t>(request.layers * request.leaves * branches, 1 << 20);
  for (int ranks = request.ranks + 1; ranks <= most; ++ranks) {
    if (!has_grid(request, ranks)) continue;
    counts.push_back(ranks);
    break;
  }
  return counts.empty() ? "no rank count satisfies it" : fmt::format("nearest usable: {}", fmt::join(counts, ", "));
}

void check_explicit(const GridRequest& request) {
  if (request.ranks < 1 || request.layers < 1 || request.leaves < 1) {
    throw ConfigError("a grid of {} ranks for {} layers and {} reduction leaves", request.ranks, request.layers,
                      request.leaves);
  }
  if (request.layer_blocks < 0 || request.layer_blocks > request.layers) {
    throw ConfigError("grid.layer_blocks is {}, expected 1 to {} (the trained layers)", request.layer_blocks,
                      request.layers);
  }
  if (request.data_parallel != 0 && !usable_group(request.data_parallel, request.leaves)) {
    throw ConfigError("grid.data_parallel is {}, expected a power of two that divides train.reduction_leaves ({})",
                      request.data_parallel, request.leaves);
  }
}

std::string asked_for(const GridRequest& request) {
  std::string text;
  if (request.layer_blocks != 0) text += fmt::format(", grid.layer_blocks {}", request.layer_blocks);
  if (request.data_parallel != 0) text += fmt::format(", grid.data_parallel {}", request.data_parallel);
  if (request.branch_parallel > 1) text += fmt::format(", grid.branch_parallel {}", request.branch_parallel);
  return text;
}

}  // namespace

std::string GridShape::to_string() const {
  return fmt::format("{} layer block{} x {} data-parallel rank{}{}", blocks, blocks == 1 ? "" : "s", data_parallel,
                     data_parallel == 1 ? "" : "s", branch_parallel == 1 ? "" : " x 2 branches");
}

int largest_block(int layers, int blocks) { return (layers + blocks - 1) / blocks; }

std::vector<GridShape> valid_grids(const GridRequest& request) {
  std::vector<GridShape> shapes;
  for (int group = std::bit_floor(static_cast<unsigned>(std::max(request.ranks, 1))); group >= 1; group /= 2) {
    for (const int branches : {1, kMostBranches}) {
      const GridShape shape{request.ranks / (group * branches), group, branches};
      if (is_valid(request, shape)) shapes.push_back(shape);
    }
  }
  return shapes;
}

GridShape choose_grid(const GridRequest& request, const std::function<double(GridShape)>& step_seconds) {
  check_explicit(request);
  const auto shapes = valid_grids(request);
  if (shapes.empty()) {
    const bool with_branches = request.branch_parallel != 1;
    throw ConfigError(
        "{} ranks do not make a grid: ranks = layer blocks x data-parallel{}, at most {} layer blocks, data-parallel a "
        "power of two that divides train.reduction_leaves ({}){}{}; {}",
        request.ranks, with_branches ? " x branches" : "", request.layers, request.leaves,
        with_branches ? ", 2 branches only where data-parallel is as many" : "", asked_for(request),
        nearest_counts(request));
  }
  return *std::min_element(shapes.begin(), shapes.end(),
                           [&](GridShape left, GridShape right) { return step_seconds(left) < step_seconds(right); });
}

namespace {

std::vector<std::size_t> even_borders(std::size_t layers, std::size_t blocks) {
  std::vector<std::size_t> borders{0};
  for (std::size_t block = 0; block < blocks; ++block)
    borders.push_back(borders.back() + layers / blocks + (block < layers % blocks ? 1 : 0));
  return borders;
}

/// Of all ways to cut the list into so many parts one whose dearest part is the cheapest; of such ways the one whose
/// last part is the shortest, and so on towards the front.
std::vector<std::size_t> cheapest_borders(const std::vector<double>& costs, std::size_t blocks) {
  const std::size_t layers = costs.size();
  std::vector<double> before(layers + 1, 0.0);
  for (std::size_t i = 0; i < layers; ++i) before[i + 1] = before[i] + costs[i];
  // dearest[b][end]: of the first `end` layers in b parts; from[b][end]: where the last of these parts begins.
  std::vector dearest(blocks + 1, std::vector<double>(layers + 1, std::numeric_limits<double>::infinity()));
  std::vector from(blocks + 1, std::vector<std::size_t>(layers + 1, 0));
  dearest[0][0] = 0.0;
  for (std::size_t b = 1; b <= blocks; ++b) {
    for (std::size_t end = b; end <= layers; ++end) {
      for (std::size_t begin = b - 1; begin < end; ++begin) {
        const double cost = std::max(dearest[b - 1][begin], before[end] - before[begin]);
        if (cost > dearest[b][end]) continue;
        dearest[b][end] = cost;
        from[b][end] = begin;
      }
    }
  }
  std::vector<std::size_t> borders{layers};
  for (std::size_t b = blocks; b > 0; --b) borders.insert(borders.begin(), from[b][borders.front()]);
  return borders;
}

}  // namespace

ProcessGrid::ProcessGrid(GridShape shape, std::vector<int> layers, const std::vector<double>& costs)
    : shape_(shape), layers_(std::move(layers)) {
  require_shape(shape_.blocks >= 1 && shape_.data_parallel >= 1 && shape_.branch_parallel >= 1 &&
                    shape_.blocks <= static_cast<int>(layers_.size()),
                "a grid of {} for {} layers", shape_.to_string(), layers_.size());
  require_shape(std::is_sorted(layers_.begin(), layers_.end()), "a grid's layers are not in ascending order");
  require_shape(costs.empty() || costs.size() == layers_.size(), "a grid with {} costs of {} layers", costs.size(),
                layers_.size());
  const auto blocks = static_cast<std::size_t>(shape_.blocks);
  borders_ = costs.empty() ? even_borders(layers_.size(), blocks) : cheapest_borders(costs, blocks);
}

std::size_t ProcessGrid::most_layers() const {
  std::size_t most = 0;
  for (std::size_t block = 1; block < borders_.size(); ++block)
    most = std::max(most, borders_[block] - borders_[block - 1]);
  return most;
}

std::vector<int> ProcessGrid::layers_of_block(int block) const {
  require_shape(block >= 0 && block < shape_.blocks, "layer block {} of {}", block, shape_.blocks);
  const auto at = static_cast<std::size_t>(block);
  return {layers_.begin() + static_cast<std::ptrdiff_t>(borders_[at]),
          layers_.begin() + static_cast<std::ptrdiff_t>(borders_[at + 1])};
}

int ProcessGrid::block_of_layer(int layer) const {
  for (int block = 0; block < shape_.blocks; ++block) {
    const auto layers = layers_of_block(block);
    if (std::find(layers.begin(), layers.end(), layer) != layers.end()) return block;
  }
  throw ShapeError("layer {} is not trained in this run", layer);
}

}  // namespace tadapt
