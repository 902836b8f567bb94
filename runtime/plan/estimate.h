// What a run will need, before it starts: memory per rank by part, disk, steps. Pure functions of sizes.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <utility>

#include "kernels/core/tensor.h"

namespace tadapt {

/// Trainable numbers of one transcoder: W_enc [F,D], b_enc [F], W_dec [D,F], b_dec [D].
std::int64_t transcoder_parameters(std::int64_t width, std::int64_t features);

struct MemoryRequest {
  std::int64_t width = 0;     ///< D
  std::int64_t features = 0;  ///< F
  int layers_in_block = 1;    ///< trained on this rank
  int data_parallel = 1;
  int state_shards = 1;                  ///< ranks that share the moments
  int writers = 1;                       ///< ranks that share the writing of a checkpoint
  std::int64_t held_for_checkpoint = 0;  ///< bytes of a parameter that are held while it is written
  std::int64_t leaves = 8;
  std::int64_t batch_tokens = 0;  ///< over all ranks
  std::int64_t loader_bytes = 0;  ///< loader_memory_bytes; 0 when there is no cache
  DType compute = DType::kBFloat16;
  std::int64_t frozen_parameters = 0;  ///< held in `compute`; 0 when training from a cache
};

/// Bytes on one rank, with n trained layers of p parameters each:
struct MemoryEstimate {
  std::int64_t frozen_weights = 0;  ///< in `compute`
  std::int64_t master = 0;          ///< 4np
  std::int64_t moments = 0;         ///< 8np, over the ranks that share them
  std::int64_t gradients = 0;       ///< 4np
  std::int64_t working_copy = 0;    ///< of W_enc and W_dec, packed and by rows, in `compute`
  std::int64_t leaf_buffers = 0;    ///< one layer's gradients of leaves on their way through the tree
  std::int64_t batch = 0;           ///< fp32 features, their gradients [T,F] and output [T,D] of one layer and leaf
  std::int64_t loader = 0;          ///< batches in use and read ahead
  std::int64_t held = 0;            ///< copies of what this rank writes of a checkpoint, in host memory
  using Part = std::pair<const char*, std::int64_t>;
  std::array<Part, 9> parts() const;  ///< by name
  std::int64_t total() const;
  std::int64_t on_device() const { return total() - loader - held; }  ///< where the adapters are trained
  std::string to_string() const;                                      ///< one line, largest unit first
};
MemoryEstimate estimate_memory(const MemoryRequest& request);

/// Bytes of one checkpoint: fp32 master and two fp32 moments of all trained layers, and 8 bytes per feature of
/// counters (headers, a few KB a layer, not counted).
std::int64_t checkpoint_bytes(int layers, std::int64_t width, std::int64_t features);
/// Bytes of tensors of one export of the adapters alone: all numbers in fp32.
std::int64_t export_bytes(int layers, std::int64_t width, std::int64_t features);
/// Bytes on disk at the worst moment: `keep` checkpoints and the one being written.
std::int64_t checkpoints_on_disk_bytes(std::int64_t one_checkpoint_bytes, std::int64_t keep);

/// A line of its own when a rank needs more memory for `phase` than its host has; empty otherwise.
std::string memory_warning(const std::string& phase, std::int64_t bytes, std::uint64_t host_bytes);

/// "29.6 GB": decimal units, three digits.
std::string readable_bytes(std::int64_t bytes);

}  // namespace tadapt
