// RowFeed: rows that the running models make when they are asked for, brought to the ranks that train on them.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "data/activation_shard.h"
#include "runtime/capture/capture.h"
#include "runtime/capture/row_pass.h"
#include "runtime/capture/row_schedule.h"
#include "runtime/comm/process_grid.h"

namespace tadapt {

/// All ranks give the same but for `world`, `context` and the callbacks. Everything outlives the feed.
struct FeedParts {
  Communicator& world;
  const ProcessGrid& grid;  ///< over the plan's layers
  Context& context;
  const Decoder& pair;  ///< as CaptureJob::pair
  const CapturePlan& plan;
  RowPass::TokenSource tokens;          ///< as CaptureJob::tokens
  std::function<void()> alive = [] {};  ///< called after every batch
};

/// The rows of a capture, number by number and bit by bit as a cache of the same plan hands them out, without the
/// cache. Ranks take the sequences behind a run of rows in turn, batch by batch, and after each batch bring its rows to
/// their owners, so that no sequence of a run is computed twice and no rank holds more than a batch of rows of layers
/// that are not its own. All operations are collective, and all ranks ask for the same.
class RowFeed {
 public:
  explicit RowFeed(FeedParts parts);

  /// Asked after every batch; one rank's yes ends an operation for all of them. Empty: nobody is asked.
  using StopRequested = std::function<bool()>;
  /// Where a row of one of this rank's layers goes: [D] of row_dtype().
  using Destination = std::function<std::byte*(std::int64_t row, std::size_t layer, RowKind kind)>;

  /// Makes rows [begin, begin + owners.size()) and gives each to the member of every data-parallel group that
  /// `owners` names; to nobody where it says kNobody. NonFiniteError naming layer, tensor, sequence and position when a
  /// number is not finite or has no finite value in the row format.
  CaptureOutcome feed(std::int64_t begin, std::span<const int> owners, const Destination& destination,
                      const StopRequested& stop = {});
  static constexpr int kNobody = -1;

  /// s² of every layer of the plan, as the manifest of a cache has it. Nothing when stopped.
  std::optional<std::vector<double>> scale_squares(const StopRequested& stop = {});

  const std::vector<int>& layers() const { return layers_; }  ///< this rank's
  std::int64_t width() const { return parts_.plan.format.width; }
  DType row_dtype() const { return delivered_dtype(parts_.plan.format); }
  Device device() const { return parts_.context.device(); }
  std::int64_t rows() const { return parts_.plan.rows; }
  /// This rank's place in its data-parallel group.
  int member() const { return parts_.grid.index_of(parts_.world.rank()); }

 private:
  /// The batches of a round, one a rank from the first on, and the rows of this rank's.
  struct Round {
    std::span<const RowBatch> batches;
    ShardRows mine;
  };
  CaptureOutcome for_each_round(std::int64_t begin, std::int64_t end, const std::function<void(const Round&)>& visit,
                                const StopRequested& stop);
  std::vector<std::string> addressed(const Round& round, std::int64_t begin, std::span<const int> owners) const;
  void encode(const ShardRows& rows, std::size_t row, std::size_t layer, RowKind kind, std::byte* to) const;
  std::size_t row_bytes() const;

  FeedParts parts_;
  std::vector<int> layers_;
  RowSchedule schedule_;
  RowPass pass_;
};

/// Host memory of a feed on any rank: a batch of rows of all layers as they are made, sent and received.
std::uint64_t feed_memory_bytes(const CacheFormat& format, std::int64_t most_batch_rows);

}  // namespace tadapt
