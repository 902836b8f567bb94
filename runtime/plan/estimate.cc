// Arithmetic on sizes.
#include "runtime/plan/estimate.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "runtime/comm/reduction_tree.h"

namespace tadapt {
namespace {
constexpr std::int64_t kFloatBytes = 4;

std::int64_t bytes_of(DType dtype) { return static_cast<std::int64_t>(bytes_per_element(dtype)); }
}  // namespace

std::int64_t transcoder_parameters(std::int64_t width, std::int64_t features) {
  return 2 * width * features + features + width;
}

std::array<MemoryEstimate::Part, 9> MemoryEstimate::parts() const {
  return {{{"frozen weights", frozen_weights},
           {"master weights", master},
           {"moments", moments},
           {"gradients", gradients},
           {"working copy", working_copy},
           {"leaf buffers", leaf_buffers},
           {"batch", batch},
           {"loader", loader},
           {"checkpoint copy", held}}};
}

std::int64_t MemoryEstimate::total() const {
  std::int64_t sum = 0;
  for (const auto& [part, bytes] : parts()) sum += bytes;
  return sum;
}

MemoryEstimate estimate_memory(const MemoryRequest& request) {
  const std::int64_t layer_parameters = transcoder_parameters(request.width, request.features);
  const std::int64_t parameters = request.layers_in_block * layer_parameters;
  const std::int64_t leaf_tokens = request.batch_tokens / request.leaves;
  const std::int64_t compute_bytes = bytes_of(request.compute);
  MemoryEstimate estimate;
  estimate.frozen_weights = request.frozen_parameters * compute_bytes;
  estimate.master = kFloatBytes * parameters;
  estimate.moments = (2 * kFloatBytes * parameters + request.state_shards - 1) / request.state_shards;
  estimate.gradients = kFloatBytes * parameters;
  // Packed W_enc, W_dec and W_dec transposed; the sparse route reads rows of W_dec, of the masters where they are fp32.
  const std::int64_t copies = request.compute == DType::kFloat32 ? 3 : 4;
  estimate.working_copy = compute_bytes * request.layers_in_block * copies * request.width * request.features;
  estimate.leaf_buffers = leaf_joiner_bytes(layer_parameters, request.leaves / request.data_parallel);
  estimate.batch = kFloatBytes * leaf_tokens * (2 * request.features + request.width);
  estimate.loader = request.loader_bytes;
  const int written = (request.layers_in_block + request.writers - 1) / request.writers;
  estimate.held = request.held_for_checkpoint * layer_parameters * written;
  return estimate;
}

std::string MemoryEstimate::to_string() const {
  std::string text = fmt::format("{}:", readable_bytes(total()));
  for (const auto& [part, bytes] : parts()) {
    if (bytes > 0) text += fmt::format(" {} {},", part, readable_bytes(bytes));
  }
  text.pop_back();
  return text;
}

std::int64_t checkpoint_bytes(int layers, std::int64_t width, std::int64_t features) {
  constexpr std::int64_t kCounterBytes = 8;
  return layers * (3 * kFloatBytes * transcoder_parameters(width, features) + kCounterBytes * features);
}

std::int64_t export_bytes(int layers, std::int64_t width, std::int64_t features) {
  return layers * kFloatBytes * transcoder_parameters(width, features);
}

std::int64_t checkpoints_on_disk_bytes(std::int64_t one_checkpoint_bytes, std::int64_t keep) {
  return one_checkpoint_bytes * (keep + 1);
}

std::string memory_warning(const std::string& phase, std::int64_t bytes, std::uint64_t host_bytes) {
  if (static_cast<std::uint64_t>(bytes) <= host_bytes) return "";
  return fmt::format("\nWARNING: a rank needs {} of memory for {}, this host has {}", readable_bytes(bytes), phase,
                     readable_bytes(static_cast<std::int64_t>(host_bytes)));
}

std::string readable_bytes(std::int64_t bytes) {
  constexpr std::array kUnits = {"B", "KB", "MB", "GB", "TB", "PB", "EB"};
  double value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 999.5 && unit + 1 < kUnits.size()) {
    value /= 1000;
    ++unit;
  }
  if (unit == 0 || value >= 99.95) return fmt::format("{:.0f} {}", value, kUnits[unit]);
  return fmt::format("{:.{}f} {}", value, value >= 9.995 ? 1 : 2, kUnits[unit]);
}

}  // namespace tadapt
