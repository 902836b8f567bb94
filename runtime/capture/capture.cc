#include "runtime/capture/capture.h"

#include <algorithm>
#include <array>
#include <optional>

#include "kernels/core/host_memory.h"
#include "runtime/capture/row_pass.h"

namespace tadapt {
namespace {

/// The first rank looks, so that all agree also where a shared file system shows them different things.
CaptureState state_seen_by_first(FileSystem& files, Communicator& ranks, const CaptureIdentity& identity) {
  std::string state;
  if (ranks.rank() == 0) state = std::to_string(static_cast<int>(capture_state(files, identity)));
  return static_cast<CaptureState>(std::stoi(ranks.broadcast_text(state, 0, "capture: state of the directory")));
}

/// WriteError unless what is still missing fits on the disk.
void require_space(const CaptureJob& job) {
  const CacheSize& size = job.plan.size;
  std::uint64_t needed = size.shard_bytes + size.listing_bytes;
  for (std::int64_t shard = 0; shard < job.plan.shards(); ++shard) {
    const std::filesystem::path path = job.directory / shard_file_name(shard);
    if (job.files.exists(path)) needed -= std::min(needed, job.files.file_size(path));
  }
  const std::uint64_t free = job.files.free_bytes(job.directory);
  if (needed <= free) return;
  throw WriteError("{}: the capture needs {} more bytes on disk, {} are free", job.directory.string(), needed, free);
}

/// Of the host: models on a GPU are in its memory, where loading them failed if they did not fit.
void require_memory(const CapturePlan& plan, Device device) {
  const std::uint64_t memory = host_memory_bytes();
  const std::uint64_t models = device == Device::kCpu ? plan.model_memory_bytes : 0;
  if (plan.shard_memory_bytes + models <= memory) return;
  throw ConfigError(
      "cache.sequences_per_shard {}: the largest shard needs {} bytes of memory beside {} of the models, this host has "
      "{}",
      plan.format.sequences_per_shard, plan.shard_memory_bytes, models, memory);
}

/// The shards that no earlier run left whole, the same list on all ranks, which share the reading; nullopt when one of
/// them was asked to stop.
std::optional<std::vector<std::int64_t>> missing_shards(const CaptureJob& job, const ActivationCacheWriter& writer) {
  std::vector<std::int64_t> missing;
  const std::int64_t ranks = job.ranks.size();
  for (std::int64_t first = 0; first < job.plan.shards(); first += ranks) {
    const std::int64_t mine = first + job.ranks.rank();
    const bool is_missing = mine < job.plan.shards() && !writer.shard_is_whole(mine);
    const std::array status{is_missing ? 1.0 : 0.0, job.stop_requested() ? 1.0 : 0.0};
    const std::vector<double> all = job.ranks.all_gather(status, "capture: whole shards");
    for (std::int64_t rank = 0; rank < ranks; ++rank) {
      const auto at = static_cast<std::size_t>(rank) * status.size();
      if (all[at + 1] != 0.0) return std::nullopt;
      if (all[at] != 0.0) missing.push_back(first + rank);
    }
  }
  return missing;
}

/// This rank's part of the work: every size()-th of the missing shards, one batch at a time.
class RankShards {
 public:
  RankShards(const CaptureJob& job, ActivationCacheWriter& writer, const std::vector<std::int64_t>& missing)
      : job_(job), writer_(writer) {
    const auto ranks = static_cast<std::size_t>(job.ranks.size());
    for (auto i = static_cast<std::size_t>(job.ranks.rank()); i < missing.size(); i += ranks)
      mine_.push_back(missing[i]);
  }
  bool done() const { return next_ == mine_.size(); }

  /// Runs one batch, and writes the shard when that was its last. Returns the rows it made.
  std::int64_t run_batch() {
    if (done()) return 0;
    if (!pass_) {
      pass_.emplace(job_.context, job_.pair, job_.plan, std::ranges::max(job_.plan.rows_per_shard));
      pass_->begin(job_.plan.rows_of_shard(mine_[next_]));
    }
    const std::int64_t rows = pass_->run_batch(job_.tokens, job_.batch_tokens);
    if (pass_->done()) {
      writer_.write_shard(mine_[next_++], pass_->rows());
      if (!done()) pass_->begin(job_.plan.rows_of_shard(mine_[next_]));
    }
    return rows;
  }

 private:
  const CaptureJob& job_;
  ActivationCacheWriter& writer_;
  std::vector<std::int64_t> mine_;
  std::size_t next_ = 0;
  std::optional<RowPass> pass_;
};

/// Batch by batch in step with the other ranks, so that no wait is longer than a batch and all stop together.
CaptureOutcome run_shards(const CaptureJob& job, ActivationCacheWriter& writer) {
  const std::optional<std::vector<std::int64_t>> found = missing_shards(job, writer);
  if (!found) return CaptureOutcome::kStopped;
  const std::vector<std::int64_t>& missing = *found;
  CaptureProgress progress{.rows_done = job.plan.rows, .rows_total = job.plan.rows};
  for (const std::int64_t shard : missing)
    progress.rows_done -= job.plan.rows_per_shard[static_cast<std::size_t>(shard)];
  RankShards shards(job, writer, missing);
  for (bool any_left = !missing.empty(); any_left;) {
    const double rows = static_cast<double>(shards.run_batch());
    const std::array mine{rows, shards.done() ? 0.0 : 1.0, job.stop_requested() ? 1.0 : 0.0};
    const std::vector<double> all = job.ranks.all_gather(mine, "capture");
    bool stop = false;
    any_left = false;
    for (std::size_t i = 0; i < all.size(); i += mine.size()) {
      progress.rows_done += static_cast<std::int64_t>(all[i]);
      any_left = any_left || all[i + 1] != 0.0;
      stop = stop || all[i + 2] != 0.0;
    }
    job.progress(progress);
    if (stop && any_left) return CaptureOutcome::kStopped;
  }
  return CaptureOutcome::kDone;
}

}  // namespace

bool capture_is_complete(FileSystem& files, Communicator& ranks, const CaptureIdentity& identity) {
  return state_seen_by_first(files, ranks, identity) == CaptureState::kComplete;
}

CaptureOutcome capture(const CaptureJob& job) {
  const CaptureIdentity identity{.directory = job.directory, .format = job.plan.format, .provenance = job.provenance};
  const CaptureState state = state_seen_by_first(job.files, job.ranks, identity);
  if (state == CaptureState::kComplete) return CaptureOutcome::kDone;
  require_memory(job.plan, job.context.device());
  if (job.ranks.rank() == 0) {
    require_space(job);
    if (state == CaptureState::kNew) begin_capture(job.files, identity);
  }
  job.ranks.barrier("capture: begun");
  ActivationCacheWriter writer(job.files, {.directory = job.directory,
                                           .format = job.plan.format,
                                           .shard_count = job.plan.shards(),
                                           .provenance = job.provenance});
  if (run_shards(job, writer) == CaptureOutcome::kStopped) return CaptureOutcome::kStopped;
  job.ranks.barrier("capture: all shards written");
  if (job.ranks.rank() == 0) writer.finalize();
  job.ranks.barrier("capture: manifest written");
  return CaptureOutcome::kDone;
}

}  // namespace tadapt
