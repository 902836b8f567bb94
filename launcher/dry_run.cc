#include "launcher/dry_run.h"

#include <algorithm>

#include "data/activation_cache_reader.h"
#include "launcher/forecast_machine.h"
#include "runtime/loss/loss.h"
#include "runtime/train/agreement.h"
#include "runtime/train/bridging_run.h"
#include "runtime/train/device_choice.h"
#include "runtime/train/prepare_cache.h"
#include "runtime/train/run_shape.h"
#include "runtime/train/streamed_rows.h"

namespace tadapt {
namespace {

constexpr std::int64_t kTypicalSequence = 512;

int planned_ranks(const RunOptions& options, const RunEnvironment& environment) {
  return options.plan.ranks > 0 ? options.plan.ranks : environment.world.size();
}

/// Of a GPU that is only planned for there is none here.
Device planned_device(const RunOptions& options, const RunEnvironment& environment) {
  return built_in_rates(options.plan.machine) != nullptr ? Device::kCuda : environment.context.device();
}

/// Not for another machine than this.
void require_memory(const RunOptions& options, const RunEnvironment& environment, const MemoryEstimate& needed) {
  if (options.plan.ranks > 0 || planned_device(options, environment) != environment.context.device()) return;
  require_device_memory(environment.context, ranks_on_device(environment.context, environment.world),
                        needed.on_device(), needed.to_string());
}

/// Of what a run keeps.
struct Disk {
  std::int64_t checkpoint = 0, exported = 0, cache = 0;
};

Disk disk_of(const std::vector<std::int64_t>& dictionaries, int layers, std::int64_t width) {
  Disk disk;
  for (const std::int64_t features : dictionaries) {
    disk.checkpoint += checkpoint_bytes(layers, width, features);
    disk.exported += export_bytes(layers, width, features);
  }
  return disk;
}

struct Findings {
  const RunOptions& options;
  const ProcessGrid& grid;
  const MemoryEstimate& memory;
  const Disk& disk;
  const ForecastMachine& machine;
  const Forecast& forecast;
};

void report(const Findings& found, const RunEnvironment& environment, DryRunRecord& record) {
  const std::int64_t kept = checkpoints_on_disk_bytes(found.disk.checkpoint, found.options.checkpoint.keep);
  environment.print(fmt::format(
      "plan: disk: checkpoints {}, cache {}, together {}; an export of the adapters {}\n{}\n{}", readable_bytes(kept),
      readable_bytes(found.disk.cache), readable_bytes(kept + found.disk.cache), readable_bytes(found.disk.exported),
      describe_assumptions(found.options, found.machine), found.forecast.to_string()));
  nlohmann::json json = found.forecast.to_json();
  const GridShape shape = found.grid.shape();
  json["objective"] = found.options.train.objective;
  json["ranks"] = shape.ranks();
  json["grid"] = {shape.blocks, shape.data_parallel, shape.branch_parallel};
  for (const auto& [part, bytes] : found.memory.parts()) json["memory"][part] = bytes;
  json["disk"] = {{"checkpoint", found.disk.checkpoint},
                  {"checkpoints", kept},
                  {"cache", found.disk.cache},
                  {"export", found.disk.exported}};
  json["rates"] = to_json(found.machine.rates);
  record.figures.push_back(std::move(json));
}

ModelSetting model_setting(const RunOptions& options, const DecoderConfig& target, std::int64_t sequence_tokens,
                           Directions directions) {
  return {
      .config = target, .compute = options.model.compute, .sequence_tokens = sequence_tokens, .directions = directions};
}

void dry_run_bridging(const RunOptions& options, const RunEnvironment& environment, DryRunRecord& record) {
  const TokenDataset corpus = load_corpus(options, options.corpus.train, environment);
  const BridgingShape shape = bridging_shape(options, environment.files, corpus, nullptr);
  const ProcessGrid grid = bridging_grid(options, shape, planned_ranks(options, environment));
  const Device device = planned_device(options, environment);
  environment.print(describe(options, shape, grid, device));
  const MemoryEstimate memory = bridging_memory(options, shape, grid, device);
  require_memory(options, environment, memory);
  const std::int64_t sequence_tokens = corpus.total_tokens() / std::max<std::int64_t>(1, corpus.size());
  const StepSetting adapter{.shape = {shape.target.width, options.adapter.features},
                            .tokens = sequence_tokens * options.train.batch_sequences / shape.leaves,
                            .compute = options.train.compute};
  const ForecastMachine machine = forecast_machine(
      options, environment,
      {.adapter = adapter, .model = model_setting(options, shape.target, sequence_tokens, Directions::kBoth)});
  const Disk disk = disk_of({options.adapter.features}, static_cast<int>(shape.layers.size()), shape.target.width);
  report({.options = options,
          .grid = grid,
          .memory = memory,
          .disk = disk,
          .machine = machine,
          .forecast = forecast_bridging(options, shape, grid, machine, corpus)},
         environment, record);
}

/// What is known of the rows before they are there.
struct PlannedRows {
  RunShape shape;
  std::int64_t disk_bytes = 0;
  double model_flops = 0.0;  ///< for one
  std::int64_t sequence_tokens = kTypicalSequence;
};

/// The run's sizes, from the cache that is there or from the plan of what would be captured or streamed.
PlannedRows planned_rows(const RunOptions& options, const DecoderConfig& target, const RunEnvironment& environment) {
  const CaptureIdentity identity = cache_identity(options, environment.files);
  const bool streams = options.cache.source == RowSource::kStream;
  const std::string directory = identity.directory.string();
  if (!streams && capture_is_complete(environment.files, environment.world, identity)) {
    environment.print(fmt::format("cache: {} is there", directory));
    const ActivationCacheReader cache(environment.files, identity.directory);
    const std::vector<std::int64_t> rows = rows_per_shard(cache.manifest());
    const CacheSize size = cache_size(identity.format, rows);
    const ForwardFlops flops = forward_flops(target);
    return {.shape = run_shape(options, identity.format, rows),
            .disk_bytes = static_cast<std::int64_t>(size.shard_bytes + size.listing_bytes),
            .model_flops = (identity.format.layers.back() + 1) * (flops.attention_per_token + flops.mlp_per_token) +
                           static_cast<double>(identity.format.layers.size()) * flops.mlp_per_token};
  }
  const CapturePlan plan = CacheCapture(options, environment, identity).plan();
  environment.print(streams ? describe_stream(plan)
                            : fmt::format("cache: {} would be captured: {}", directory, describe(plan)));
  return {.shape = run_shape(options, plan),
          .disk_bytes = streams ? 0 : static_cast<std::int64_t>(plan.size.shard_bytes + plan.size.listing_bytes),
          .model_flops = plan.flops / static_cast<double>(plan.rows),
          .sequence_tokens = plan.tokens / static_cast<std::int64_t>(plan.sequences.size())};
}

}  // namespace

void DryRunRecord::write(const std::filesystem::path& path, const RunEnvironment& environment) const {
  if (path.empty()) return;
  on_rank_zero(environment.world, [&] {
    write_atomically(environment.files, path, figures.dump(1) + "\n");
    return std::string();
  });
}

void dry_run_side_by_side(const std::vector<const RunOptions*>& runs, const RunEnvironment& environment,
                          DryRunRecord& record) {
  const RunOptions& options = *runs.front();
  const DecoderConfig target = load_decoder_config(environment.files, options.model.target);
  PlannedRows rows = planned_rows(options, target, environment);
  RunShape& shape = rows.shape;
  shape.dictionaries.clear();
  for (const RunOptions* run : runs) shape.dictionaries.push_back(run->adapter.features);
  if (const std::string warning = held_out_warning(options, shape); !warning.empty()) environment.print(warning);
  const ProcessGrid grid = run_grid(options, shape, planned_ranks(options, environment));
  environment.print(describe(options, shape, grid));
  const MemoryEstimate memory = run_memory(options, shape, grid);
  require_memory(options, environment, memory);
  const StepSetting adapter{.shape = {shape.width, std::ranges::max(shape.dictionaries)},
                            .tokens = options.train.batch_tokens / options.train.reduction_leaves,
                            .compute = options.train.compute};
  const ForecastMachine machine = forecast_machine(
      options, environment,
      {.adapter = adapter, .model = model_setting(options, target, rows.sequence_tokens, Directions::kForward)});
  Disk disk = disk_of(shape.dictionaries, static_cast<int>(shape.layers.size()), shape.width);
  disk.cache = rows.disk_bytes;
  report({.options = options,
          .grid = grid,
          .memory = memory,
          .disk = disk,
          .machine = machine,
          .forecast = forecast_local(options, shape, grid, machine, rows.model_flops)},
         environment, record);
}

void dry_run(const RunOptions& options, const RunEnvironment& environment, DryRunRecord& record) {
  if (needs_cached_rows_only(find_objective(options.train.objective)))
    dry_run_side_by_side({&options}, environment, record);
  else
    dry_run_bridging(options, environment, record);
}

void dry_run_capture(const RunOptions& options, const RunEnvironment& environment, DryRunRecord& record) {
  const CaptureIdentity identity = cache_identity(options, environment.files);
  const CapturePlan plan = CacheCapture(options, environment, identity).plan();
  environment.print(describe(plan));
  const DecoderConfig target = load_decoder_config(environment.files, options.model.target);
  const std::int64_t sequence_tokens = plan.tokens / static_cast<std::int64_t>(plan.sequences.size());
  const ForecastMachine machine = forecast_machine(
      options, environment, {.model = model_setting(options, target, sequence_tokens, Directions::kForward)});
  const int ranks = planned_ranks(options, environment);
  const CaptureForecast forecast = forecast_capture(options, plan, ranks, machine.rates);
  const double rows = static_cast<double>(plan.rows);
  environment.print(fmt::format("{}\nplan: {} rank{}: {:.4g} rows/s; {:.3g} s of models, {:.3g} s of writing",
                                describe_assumptions(options, machine), ranks, ranks == 1 ? "" : "s",
                                rows / forecast.seconds(), forecast.compute, forecast.writing));
  record.figures.push_back({{"rows_per_second", rows / forecast.seconds()},
                            {"rows", plan.rows},
                            {"ranks", ranks},
                            {"seconds", {{"models", forecast.compute}, {"writing", forecast.writing}}},
                            {"memory", {{"models", plan.model_memory_bytes}, {"shard", plan.shard_memory_bytes}}},
                            {"disk", {{"cache", plan.size.shard_bytes + plan.size.listing_bytes}}},
                            {"rates", to_json(machine.rates)}});
}

}  // namespace tadapt
