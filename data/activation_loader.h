// Feeding one rank: batches of rows from a cache, read ahead by worker threads.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <limits>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "data/activation_cache_reader.h"
#include "data/activation_source.h"
#include "data/loader_plan.h"
#include "data/row_order.h"

namespace tadapt {

struct LoaderOptions {
  std::vector<int> layers;  ///< the layers this rank trains
  BatchSlice slice;
  int threads = 2;               ///< reading threads, at least 1
  Device device = Device::kCpu;  ///< that copies from the batches' memory, which lies on the host
  std::int64_t end_sample = std::numeric_limits<std::int64_t>::max();  ///< no batch is asked for behind it
};

/// Memory that a loader never exceeds (per-thread reading scratch of about 256 KiB aside): this rank's part of the
/// batch in use and of two windows beyond it, rounded up to batches; under `global` of two batches, and a checksum of 4
/// bytes for every x and Δ row.
std::uint64_t loader_memory_bytes(const CacheFormat& format, const DataOrder& order, const LoaderOptions& options);

/// Batches from a cache. What a batch holds is never a question of timing. Every chunk is checked whenever it is read;
/// under `global`, where a batch wants single rows, a chunk is read whole the first time, and from then on by rows,
/// each compared with the checksum that it had that time.
class ActivationLoader : public ActivationSource {
 public:
  /// Starts reading. The cache must outlive the loader. `order` covers the rows to train on: the first order.rows() of
  /// the cache. ConfigError when there are not so many; DataError when the cache lacks a layer.
  ActivationLoader(const ActivationCacheReader& cache, DataOrder order, LoaderOptions options);
  ActivationLoader(const ActivationLoader&) = delete;
  ActivationLoader& operator=(const ActivationLoader&) = delete;
  ~ActivationLoader() override = default;  // members end in reverse order: the threads first

  /// Rethrows the error of a reading thread, now and in every later call, when the batch cannot be completed because of
  /// it.
  const ActivationBatch& next() override;

  /// Seconds that next() has waited for data so far.
  double stall_seconds() const override { return stall_seconds_; }
  /// Memory held for batches now.
  std::uint64_t allocated_bytes() const;

 private:
  struct Slot {
    Buffer memory;
    ActivationBatch batch;
  };
  /// Samples that are read together. Its tasks are (layer, kind, piece): a piece is a share of the plan's chunks.
  struct Block {
    BlockPlan plan;
    std::vector<Slot*> slots;  // of the batches from slice.batch(plan.begin) on
    std::size_t pieces = 0;
    std::size_t tasks = 0, claimed = 0, done = 0;
  };
  struct Worker;

  void work(const std::stop_token& stop);
  bool may_plan() const;
  Block* claimable() const;
  void plan_next_block(std::unique_lock<std::mutex>& lock);
  void run_task(std::unique_lock<std::mutex>& lock, Block& block, Worker& worker);
  void read(const Block& block, std::size_t task, Worker& worker);
  void gather(const ShardReader& shard, std::size_t layer, RowKind kind, const ChunkRows& chunk, Worker& worker);
  void retire_read_blocks();
  void add_slot();
  std::unique_ptr<Slot> new_slot() const;
  std::int64_t wanted_end() const;

  const ActivationCacheReader& cache_;
  const DataOrder order_;
  const LoaderOptions options_;
  std::vector<std::size_t> layer_indices_;   // in the cache
  std::vector<std::size_t> first_chunk_of_;  // per shard: chunks before it; then all
  // Under `global` only, per (layer, kind): of each chunk, whether it was checked, and then of each row its checksum.
  std::vector<std::atomic<bool>> verified_;
  std::vector<RowChecksum> row_checksums_;

  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<std::unique_ptr<Slot>> slots_;  // of batches front_batch_, front_batch_ + 1, …
  std::vector<std::unique_ptr<Slot>> free_slots_;
  std::deque<std::unique_ptr<Block>> blocks_;  // planned and not wholly read, in order
  std::int64_t front_batch_ = 0;               // the batch in use, or the next to hand out
  bool in_use_ = false;
  std::int64_t last_planned_begin_ = -1;  // of the block planned last
  std::int64_t planned_end_ = 0;          // of the blocks planned so far
  std::int64_t read_end_ = 0;             // samples before this are all read
  bool planning_ = false;
  std::exception_ptr failure_;
  double stall_seconds_ = 0;
  std::vector<std::jthread> threads_;
};

}  // namespace tadapt
