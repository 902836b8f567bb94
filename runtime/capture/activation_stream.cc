#include "runtime/capture/activation_stream.h"

#include <algorithm>
#include <chrono>
#include <cstring>

namespace tadapt {
namespace {

std::byte* row_at(const Buffer& memory, std::int64_t row) {
  const Tensor whole = memory.tensor();
  return static_cast<std::byte*>(whole.rows(row, row + 1).data());
}

std::size_t tensor_of(std::size_t layer, RowKind kind) { return 2 * layer + static_cast<std::size_t>(kind); }

}  // namespace

std::uint64_t stream_memory_bytes(const CacheFormat& format, std::size_t layers, const DataOrder& order,
                                  const BatchSlice& slice) {
  const std::int64_t window = std::min(order.window_rows(), order.rows());
  const std::int64_t batches = 1 + (window + slice.batch_rows - 1) / slice.batch_rows;
  return 2 * layers * static_cast<std::uint64_t>(batches * slice.rows() * format.width) *
         bytes_per_element(delivered_dtype(format));
}

ActivationStream::ActivationStream(RowFeed& feed, DataOrder order, BatchSlice slice)
    : feed_(feed), order_(order), slice_(slice), made_end_(slice.first_sample) {
  require_shape(!order.is_global(), "stream: rows in global order");
  require_shape(order.rows() <= feed.rows(), "stream: {} rows to train on, there are {}", order.rows(), feed.rows());
}

std::unique_ptr<ActivationStream::Slot> ActivationStream::new_slot() const {
  auto slot = std::make_unique<Slot>();
  const auto add = [&] {
    slot->memory.push_back(Buffer::pinned(feed_.device(), feed_.row_dtype(), {slice_.rows(), feed_.width()}));
    return slot->memory.back().tensor();
  };
  for (std::size_t layer = 0; layer < feed_.layers().size(); ++layer) {
    const Tensor x = add(), delta = add();
    slot->batch.layers.push_back({x, delta});
  }
  return slot;
}

/// Which member of a data-parallel group has this sample in its part of the batch.
int ActivationStream::owner(std::int64_t sample) const {
  return static_cast<int>((sample - slice_.first_sample) % slice_.batch_rows / slice_.rows());
}

void ActivationStream::make_block() {
  const std::int64_t begin = made_end_, end = order_.block_end(begin, slice_.batch_rows);
  const std::vector<std::int64_t> rows = order_.rows_of(begin, end);
  const auto [first, last] = std::ranges::minmax(rows);
  std::vector<int> owners(static_cast<std::size_t>(last - first + 1), RowFeed::kNobody);
  std::vector<std::int64_t> samples(owners.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const std::int64_t sample = begin + static_cast<std::int64_t>(i);
    const auto at = static_cast<std::size_t>(rows[i] - first);
    owners[at] = owner(sample);
    samples[at] = sample;
  }
  while (static_cast<std::int64_t>(slots_.size()) <= slice_.batch(end - 1) - front_batch_) {
    if (free_slots_.empty()) free_slots_.push_back(new_slot());
    slots_.push_back(std::move(free_slots_.back()));
    free_slots_.pop_back();
  }
  feed_.feed(first, owners, [&](std::int64_t row, std::size_t layer, RowKind kind) {
    const std::int64_t sample = samples[static_cast<std::size_t>(row - first)];
    const Slot& slot = *slots_[static_cast<std::size_t>(slice_.batch(sample) - front_batch_)];
    return row_at(slot.memory[tensor_of(layer, kind)], slice_.place(sample));
  });
  made_end_ = end;
}

const ActivationBatch& ActivationStream::next() {
  if (in_use_) {
    free_slots_.push_back(std::move(slots_.front()));
    slots_.pop_front();
    ++front_batch_;
  }
  in_use_ = true;
  const std::int64_t first_sample = slice_.first_sample + front_batch_ * slice_.batch_rows;
  const auto start = std::chrono::steady_clock::now();
  while (made_end_ < first_sample + slice_.batch_rows) make_block();
  stall_seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  ActivationBatch& batch = slots_.front()->batch;
  batch.first_sample = first_sample + slice_.slice_begin;
  return batch;
}

KeptRows::KeptRows(const RowFeed& feed, std::int64_t begin, const std::vector<int>& owners)
    : layers_(feed.layers()), width_(feed.width()), dtype_(feed.row_dtype()), begin_(begin) {
  std::int64_t kept = 0;
  for (const int owner : owners) places_.push_back(owner == feed.member() ? kept++ : -1);
  for (std::size_t i = 0; i < 2 * layers_.size(); ++i) memory_.emplace_back(Device::kCpu, dtype_, Shape{kept, width_});
}

std::unique_ptr<KeptRows> KeptRows::make(RowFeed& feed, std::int64_t begin, const std::vector<int>& owners,
                                         const RowFeed::StopRequested& stop) {
  std::unique_ptr<KeptRows> kept(new KeptRows(feed, begin, owners));
  const auto to = [&](std::int64_t row, std::size_t layer, RowKind kind) { return kept->place(row, layer, kind); };
  return feed.feed(begin, owners, to, stop) == CaptureOutcome::kDone ? std::move(kept) : nullptr;
}

std::uint64_t KeptRows::memory_bytes(const CacheFormat& format, std::size_t layers, std::int64_t rows) {
  return 2 * layers * static_cast<std::uint64_t>(rows * format.width) * bytes_per_element(delivered_dtype(format));
}

std::byte* KeptRows::place(std::int64_t row, std::size_t layer, RowKind kind) const {
  return row_at(memory_[tensor_of(layer, kind)], places_[static_cast<std::size_t>(row - begin_)]);
}

void KeptRows::read_rows(int layer, std::int64_t begin, std::int64_t end, Tensor x_out, Tensor delta_out) const {
  const auto found = std::ranges::find(layers_, layer);
  require_shape(found != layers_.end(), "layer {} is not kept here", layer);
  const auto index = static_cast<std::size_t>(found - layers_.begin());
  const auto rows_end = begin_ + static_cast<std::int64_t>(places_.size());
  require_shape(begin_ <= begin && begin <= end && end <= rows_end, "rows [{}, {}) of [{}, {})", begin, end, begin_,
                rows_end);
  for (const auto& [out, kind] : {std::pair(x_out, RowKind::kInput), std::pair(delta_out, RowKind::kDelta)}) {
    require_shape(out.dtype() == dtype_ && out.shape() == Shape({end - begin, width_}), "rows [{}, {}) into {} {}",
                  begin, end, name(out.dtype()), out.shape());
    for (std::int64_t row = begin; row < end; ++row) {
      require_shape(places_[static_cast<std::size_t>(row - begin_)] >= 0, "row {} is kept by another rank", row);
      const Tensor to = out.rows(row - begin, row - begin + 1);
      std::memcpy(to.data(), place(row, index, kind), to.bytes());
    }
  }
}

}  // namespace tadapt
