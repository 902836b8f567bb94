// What a run is asked to do: plain values, filled and validated once by the launcher, immutable afterwards.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "data/chat_format.h"
#include "kernels/core/tensor.h"
#include "runtime/comm/device_group.h"
#include "runtime/loss/bridging_schedule.h"

namespace tadapt {

enum class RowFormat { kBFloat16, kFloat32, kInt8 };
enum class RowSource { kDisk, kStream };
enum class RowOrder { kWindow, kGlobal };
enum class SparsityScale { kAuto, kRelative, kAbsolute };
enum class Recipe { kCode, kPaper };
enum class Recompute { kNone, kHidden };
enum class ShardState { kOff, kOn };
enum class Asynchronous { kOff, kOn };

struct ModelOptions {
  std::filesystem::path base;        ///< directory of the base model
  std::filesystem::path target;      ///< directory of the fine-tuned target
  DType compute = DType::kBFloat16;  ///< operands of the frozen models' products (accumulation is fp32)
};

struct CorpusOptions {
  std::filesystem::path train;       ///< JSONL to capture from
  std::filesystem::path validation;  ///< JSONL for evaluation; may be empty
  ChatFormat format = ChatFormat::kDeepseek;
  std::int64_t max_sequence_tokens = 10000;  ///< longer sequences are truncated
};

struct CacheOptions {
  RowSource source = RowSource::kDisk;  ///< of what is trained on: kept on disk, or made anew by the models
  std::filesystem::path dir;            ///< empty: <run.dir>/cache
  RowFormat rows = RowFormat::kBFloat16;
  std::int64_t max_tokens = 0;            ///< rows kept in all; 0: no limit
  std::int64_t tokens_per_sequence = 0;   ///< rows kept of each sequence, drawn by seed; 0: all
  std::int64_t drop_first_positions = 0;  ///< positions left out at the start of each sequence
  std::int64_t sequences_per_shard = 256;
  std::int64_t chunk_bytes = 4 << 20;  ///< size aimed at for an HDF5 chunk
  std::int64_t held_out_shards = 1;    ///< the last shards, never trained on, used for held-out metrics
};

struct AdapterOptions {
  std::string type = "transcoder";
  std::int64_t features = 8192;        ///< dictionary size F
  std::filesystem::path init_from;     ///< a run, checkpoint or export to start from; empty: the usual start
  std::optional<double> sparse_below;  ///< active features per token; none: sparse_below() of the backend and shape
};

struct LossOptions {
  double sparsity = 1e-3;  ///< lambda of method.md §2
  SparsityScale sparsity_scale = SparsityScale::kAuto;
  double sparsity_initial = 1.0;        ///< share of `sparsity` at the first step
  double sparsity_ramp_fraction = 0.0;  ///< of all steps, linear from that share to 1
  // Bridging only.
  Recipe recipe = Recipe::kCode;  ///< what the next three are where they are not given
  std::optional<double> kl_adapter, kl_bridge, residual_nmse;
  double label = 0.0;
  Backbone backbone = Backbone::kTarget;
  int cutoffs = 1;            ///< drawn per step
  std::string fixed_cutoffs;  ///< "3,14": the same in every step; empty: drawn
};

struct OptimOptions {
  double learning_rate = 8e-4;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0.0;
  double warmup_fraction = 0.05;              ///< of all steps, linear from 0; then cosine to 0
  double clip_norm = 1.0;                     ///< per layer (local objective); 0: no clipping
  ShardState shard_state = ShardState::kOff;  ///< whether data-parallel ranks share the moments
};

struct TrainOptions {
  std::string objective = "local";
  DType compute = DType::kBFloat16;   ///< operands of the adapters' products; master weights are always fp32
  std::int64_t batch_tokens = 16384;  ///< rows per optimiser step, over all ranks (local)
  std::int64_t batch_sequences = 1;   ///< sequences per optimiser step, over all ranks (bridging)
  std::int64_t reduction_leaves = 8;  ///< a power of two; gradients of this many equal parts join in a fixed tree
  double epochs = 1.0;
  std::int64_t steps = 0;  ///< 0: from epochs
  RowOrder order = RowOrder::kWindow;
  std::int64_t window_tokens = 65536;  ///< rows shuffled together under order: window
  std::uint64_t seed = 0;
  std::int64_t evaluate_every_steps = 200;            ///< 0: only at the end
  std::int64_t held_out_tokens = 65536;               ///< held-out rows looked at per evaluation, at most
  Recompute recompute = Recompute::kNone;             ///< what bridging's backward computes again rather than keeps
  std::int64_t logits_bytes = std::int64_t{1} << 28;  ///< for logits at a time (bridging)
  std::int64_t dead_after_tokens = 1'000'000;         ///< a feature not active in this many tokens is dead
};

struct CheckpointOptions {
  std::int64_t every_steps = 500;  ///< 0: only at the end and on signals
  std::int64_t keep = 2;
  int failures_allowed = 3;  ///< consecutive failed periodic saves before the run stops
  Asynchronous asynchronous = Asynchronous::kOn;
};

struct GridOptions {
  std::string device = "auto";           ///< as parse_device takes it
  int layer_blocks = 0;                  ///< 0: auto
  int data_parallel = 0;                 ///< 0: auto
  int branch_parallel = 0;               ///< 0: auto
  int threads = 0;                       ///< per rank; 0: cores in the affinity mask / ranks sharing them
  SumOrder sum_order = SumOrder::kFast;  ///< of gradients on several GPUs; on the CPU it is always the fixed one
  int timeout_seconds = 600;             ///< bound of every wait for a peer
};

struct LogOptions {
  double every_seconds = 5.0;            ///< between progress lines
  std::int64_t metrics_every_steps = 1;  ///< steps between lines of metrics.jsonl
};

/// What --dry-run assumes; a run does not look at it.
struct PlanOptions {
  std::string machine = "auto";           ///< whose rates: auto, measured, or a name that built_in_rates knows
  std::filesystem::path rates;            ///< a file of them, as calibrate writes it; empty: none
  int ranks = 0;                          ///< planned for; 0: as many as there are
  int ranks_per_node = 8;                 ///< that share a node's storage and talk without the network
  std::optional<double> active_features;  ///< per token and layer; none: kAssumedActive
  double storage_bytes_per_second = 2e9;  ///< read by a node
};
inline constexpr double kAssumedActive = 10.0;

struct RunOptions {
  std::filesystem::path dir;   ///< run directory; empty: runs/<name of the config file> where started
  std::string layers = "all";  ///< "all" or a list such as "0,3,5-8"
  ModelOptions model;
  CorpusOptions corpus;
  CacheOptions cache;
  AdapterOptions adapter;
  LossOptions loss;
  OptimOptions optim;
  TrainOptions train;
  CheckpointOptions checkpoint;
  GridOptions grid;
  LogOptions log;
  PlanOptions plan;
};

/// Layers `first` to `last`, both included.
struct LayerRange {
  int first;
  int last;
};

/// The pieces of a list such as "0,3,5-8" (not "all"), as written; ConfigError naming the bad piece.
std::vector<LayerRange> parse_layer_ranges(const std::string& text);

/// "all" or "0,3,5-8" as sorted, distinct layer numbers below `layer_count`; ConfigError naming the bad piece.
std::vector<int> parse_layers(const std::string& text, int layer_count);

}  // namespace tadapt
