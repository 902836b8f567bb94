#include "runtime/train/training_rows.h"

#include "data/activation_cache_reader.h"
#include "runtime/train/agreement.h"
#include "runtime/train/prepare_cache.h"
#include "runtime/train/streamed_rows.h"

namespace tadapt {
namespace {

class CachedRows : public TrainingRows {
 public:
  CachedRows(const RowsRequest& request, const ApproveShape& approve)
      : request_(request), cache_(request.environment.files, request.identity.directory) {
    const CacheManifest& manifest = cache_.manifest();
    shape_ = run_shape(request.options, request.identity.format, rows_per_shard(manifest));
    approve(shape_);
    for (const int layer : shape_.layers)
      scale_squares_.push_back(manifest.layers[cache_.layer_index(layer)].scale_square);
    provenance_ = manifest.provenance;
    hash_ = manifest_hash(manifest);
  }

  const RowReader& held_out() const override { return cache_; }

  std::unique_ptr<ActivationSource> source(std::int64_t first_step) override {
    const RunEnvironment& environment = request_.environment;
    LoaderOptions loading = loader_options(request_.options, request_.grid, environment.world.rank(), first_step);
    loading.device = environment.context.device();
    loading.end_sample = shape_.steps * request_.options.train.batch_tokens;
    return std::make_unique<ActivationLoader>(cache_, data_order(request_.options, shape_), loading);
  }

 private:
  RowsRequest request_;
  ActivationCacheReader cache_;
};

}  // namespace

std::unique_ptr<TrainingRows> prepare_training_rows(const RowsRequest& request, const ApproveShape& approve) {
  if (request.options.cache.source == RowSource::kStream) return StreamedRows::make(request, approve);
  // What is wrong with the run is said before anything is captured for it.
  const auto approve_plan = [&](const CapturePlan& plan) { approve(run_shape(request.options, plan)); };
  if (prepare_cache(request.options, request.environment, request.identity, approve_plan) == CaptureOutcome::kStopped)
    return nullptr;
  std::unique_ptr<TrainingRows> rows;
  agree(request.environment.world, [&] { rows = std::make_unique<CachedRows>(request, approve); });
  return rows;
}

}  // namespace tadapt
