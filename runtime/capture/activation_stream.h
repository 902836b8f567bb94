// ActivationStream: batches whose rows the models make anew, window by window; nothing is written.
#pragma once

#include <deque>
#include <memory>

#include "data/activation_source.h"
#include "data/loader_plan.h"
#include "data/row_order.h"
#include "data/row_reader.h"
#include "runtime/capture/row_feed.h"

namespace tadapt {

/// Hands out what an ActivationLoader over a cache of the same plan does, bit for bit. next() is collective: it makes
/// the next window when the batch wants one.
class ActivationStream : public ActivationSource {
 public:
  /// `order` covers the rows to train on, the first order.rows() of the feed's; ShapeError when there are not so many,
  /// or the order is global. All members of a data-parallel group have slices of one size, in their order.
  ActivationStream(RowFeed& feed, DataOrder order, BatchSlice slice);

  const ActivationBatch& next() override;
  /// All of the models' time.
  double stall_seconds() const override { return stall_seconds_; }

 private:
  struct Slot {
    std::vector<Buffer> memory;  // x and Δ of each layer
    ActivationBatch batch;
  };
  void make_block();
  std::unique_ptr<Slot> new_slot() const;
  int owner(std::int64_t sample) const;

  RowFeed& feed_;
  const DataOrder order_;
  const BatchSlice slice_;
  std::deque<std::unique_ptr<Slot>> slots_;  // of batches front_batch_, front_batch_ + 1, …
  std::vector<std::unique_ptr<Slot>> free_slots_;
  std::int64_t front_batch_ = 0;  // the batch in use, or the next to hand out
  bool in_use_ = false;
  std::int64_t made_end_;  // samples before this are there
  double stall_seconds_ = 0;
};

/// Memory that a stream never exceeds beside its feed: this rank's part of the batch in use and of a window beyond it,
/// rounded up to batches.
std::uint64_t stream_memory_bytes(const CacheFormat& format, std::size_t layers, const DataOrder& order,
                                  const BatchSlice& slice);

/// Rows that were made once and stay in memory.
class KeptRows : public RowReader {
 public:
  /// Keeps those of rows [begin, begin + owners.size()) that this rank owns; null when stopped. Collective.
  static std::unique_ptr<KeptRows> make(RowFeed& feed, std::int64_t begin, const std::vector<int>& owners,
                                        const RowFeed::StopRequested& stop);

  static std::uint64_t memory_bytes(const CacheFormat& format, std::size_t layers, std::int64_t rows);

  std::int64_t width() const override { return width_; }
  DType row_dtype() const override { return dtype_; }
  void read_rows(int layer, std::int64_t begin, std::int64_t end, Tensor x_out, Tensor delta_out) const override;

 private:
  KeptRows(const RowFeed& feed, std::int64_t begin, const std::vector<int>& owners);
  std::byte* place(std::int64_t row, std::size_t layer, RowKind kind) const;

  std::vector<int> layers_;
  std::int64_t width_;
  DType dtype_;
  std::int64_t begin_;
  std::vector<std::int64_t> places_;  ///< of each row among those kept; -1: another rank's
  std::vector<Buffer> memory_;        ///< x and Δ of each layer, [kept rows, D]
};

}  // namespace tadapt
