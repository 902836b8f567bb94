#include "runtime/train/streamed_rows.h"

#include "runtime/train/agreement.h"

namespace tadapt {

std::string describe_stream(const CapturePlan& plan) {
  return fmt::format(
      "stream: {} rows of {} layers from {} sequences, made in memory, nothing on disk; {:.3g} FLOP a pass", plan.rows,
      plan.format.layers.size(), plan.sequences.size(), plan.flops);
}

StreamedRows::StreamedRows(const RowsRequest& request, const ApproveShape& approve)
    : request_(request), capture_(request.options, request.environment, request.identity) {
  const auto& [options, environment, identity, grid] = request_;
  const CapturePlan& plan = capture_.plan();
  shape_ = run_shape(options, plan);
  approve(shape_);
  environment.print(describe_stream(plan));
  environment.heartbeat("loading models");
  pair_ = std::make_unique<Decoder>(Decoder::load_pair(environment.context, environment.files, options.model.target,
                                                       options.model.base, options.model.compute));
  feed_ = std::make_unique<RowFeed>(
      FeedParts{.world = environment.world,
                .grid = grid,
                .context = environment.context,
                .pair = *pair_,
                .plan = plan,
                .tokens = [this](std::int64_t sequence) { return capture_.corpus().sequence(sequence).ids; },
                .alive = [this] { request_.environment.heartbeat("streaming rows"); }});
}

/// Scales and held-out rows.
CaptureOutcome StreamedRows::make_first_rows() {
  const auto& [options, environment, identity, grid] = request_;
  const auto squares = feed_->scale_squares(environment.stop_requested);
  if (!squares) return CaptureOutcome::kStopped;
  scale_squares_ = *squares;
  const RowPieces pieces = held_out_pieces(options, shape_);
  held_out_ = KeptRows::make(*feed_, pieces.begin, pieces.owners(grid.data_parallel()), environment.stop_requested);
  if (!held_out_) return CaptureOutcome::kStopped;
  provenance_ = identity.provenance;
  CacheManifest facts;
  facts.format = identity.format;
  facts.provenance = provenance_;
  facts.rows = capture_.plan().rows;
  hash_ = manifest_hash(facts);
  return CaptureOutcome::kDone;
}

std::unique_ptr<StreamedRows> StreamedRows::make(const RowsRequest& request, const ApproveShape& approve) {
  std::unique_ptr<StreamedRows> rows;
  agree(request.environment.world, [&] { rows.reset(new StreamedRows(request, approve)); });
  return rows->make_first_rows() == CaptureOutcome::kDone ? std::move(rows) : nullptr;
}

std::unique_ptr<ActivationSource> StreamedRows::source(std::int64_t first_step) {
  const LoaderOptions loading =
      loader_options(request_.options, request_.grid, request_.environment.world.rank(), first_step);
  return std::make_unique<ActivationStream>(*feed_, data_order(request_.options, shape_), loading.slice);
}

}  // namespace tadapt
