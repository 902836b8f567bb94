#include "launcher/dry_run.h"

#include "data/activation_cache_reader.h"
#include "runtime/loss/loss.h"
#include "runtime/train/bridging_run.h"
#include "runtime/train/device_choice.h"
#include "runtime/train/prepare_cache.h"
#include "runtime/train/run_shape.h"
#include "runtime/train/streamed_rows.h"

namespace tadapt {
namespace {

void require_memory(const RunEnvironment& environment, const MemoryEstimate& needed) {
  require_device_memory(environment.context, ranks_on_device(environment.context, environment.world),
                        needed.on_device(), needed.to_string());
}

void dry_run_bridging(const RunOptions& options, const RunEnvironment& environment) {
  const TokenDataset corpus = load_corpus(options, options.corpus.train, environment);
  const BridgingShape shape = bridging_shape(options, environment.files, corpus, nullptr);
  const ProcessGrid grid = bridging_grid(options, shape, environment.world.size());
  const Device device = environment.context.device();
  environment.print(describe(options, shape, grid, device));
  require_memory(environment, bridging_memory(options, shape, grid, device));
}

/// The run's sizes, from the cache that is there or from the plan of what would be captured or streamed.
RunShape planned_shape(const RunOptions& options, const RunEnvironment& environment) {
  const CaptureIdentity identity = cache_identity(options, environment.files);
  const bool streams = options.cache.source == RowSource::kStream;
  const std::string directory = identity.directory.string();
  if (!streams && capture_is_complete(environment.files, environment.world, identity)) {
    environment.print(fmt::format("cache: {} is there", directory));
    const ActivationCacheReader cache(environment.files, identity.directory);
    return run_shape(options, identity.format, rows_per_shard(cache.manifest()));
  }
  const CapturePlan plan = CacheCapture(options, environment, identity).plan();
  environment.print(streams ? describe_stream(plan)
                            : fmt::format("cache: {} would be captured: {}", directory, describe(plan)));
  return run_shape(options, plan);
}

}  // namespace

void dry_run_side_by_side(const std::vector<const RunOptions*>& runs, const RunEnvironment& environment) {
  const RunOptions& options = *runs.front();
  RunShape shape = planned_shape(options, environment);
  shape.dictionaries.clear();
  for (const RunOptions* run : runs) shape.dictionaries.push_back(run->adapter.features);
  if (const std::string warning = held_out_warning(options, shape); !warning.empty()) environment.print(warning);
  const ProcessGrid grid = run_grid(options, shape, environment.world.size());
  environment.print(describe(options, shape, grid));
  require_memory(environment, run_memory(options, shape, grid));
}

void dry_run(const RunOptions& options, const RunEnvironment& environment) {
  if (needs_cached_rows_only(find_objective(options.train.objective)))
    dry_run_side_by_side({&options}, environment);
  else
    dry_run_bridging(options, environment);
}

}  // namespace tadapt
