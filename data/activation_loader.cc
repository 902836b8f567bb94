// ActivationLoader: blocks of samples are planned one after the other, their chunks read by any thread in any order.
#include "data/activation_loader.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

#include "kernels/core/error.h"

namespace tadapt {
namespace {
constexpr std::size_t kTensorAlignment = 64;

std::size_t tensor_bytes(const CacheFormat& format, const BatchSlice& slice) {
  const auto elements = static_cast<std::size_t>(slice.rows() * format.width);
  const std::size_t bytes = elements * bytes_per_element(delivered_dtype(format));
  return (bytes + kTensorAlignment - 1) / kTensorAlignment * kTensorAlignment;
}

/// Asks for large pages under a buffer of zeros: rows are scattered over it, and with small pages most of the time went
/// into address translation. Pages already there are small and given back; touched again, they are zeros as before.
void prefer_large_pages(const Buffer& buffer) {
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<std::uintptr_t>(buffer.data()) + page - 1) / page * page;
  const auto end = (reinterpret_cast<std::uintptr_t>(buffer.data()) + buffer.bytes()) / page * page;
  if (begin >= end) return;
  auto* pages = reinterpret_cast<void*>(begin);
  if (::madvise(pages, end - begin, MADV_HUGEPAGE) == 0) ::madvise(pages, end - begin, MADV_DONTNEED);
}

/// Samples that are read together at most.
std::int64_t block_rows(const DataOrder& order, const BatchSlice& slice) {
  return order.is_global() ? slice.batch_rows : order.window_rows();
}

/// Batches in memory at most: the one in use, and those of two blocks ahead.
std::int64_t most_slots(const DataOrder& order, const BatchSlice& slice) {
  return 1 + (2 * block_rows(order, slice) + slice.batch_rows - 1) / slice.batch_rows;
}

void check_options(const LoaderOptions& options) {
  const BatchSlice& slice = options.slice;
  require_shape(options.threads >= 1, "loader: {} threads", options.threads);
  require_shape(slice.batch_rows >= 1 && 0 <= slice.slice_begin && slice.slice_begin <= slice.slice_end &&
                    slice.slice_end <= slice.batch_rows && slice.first_sample >= 0,
                "loader: rows [{}, {}) of batches of {} from sample {}", slice.slice_begin, slice.slice_end,
                slice.batch_rows, slice.first_sample);
}
}  // namespace

/// What one reading thread keeps from task to task.
struct ActivationLoader::Worker {
  ReadScratch scratch;
  std::vector<WantedRow> wanted;
};

std::uint64_t loader_memory_bytes(const CacheFormat& format, const DataOrder& order, const LoaderOptions& options) {
  const BatchSlice& slice = options.slice;
  const auto batches = static_cast<std::uint64_t>(most_slots(order, slice));
  const std::uint64_t checksums =
      order.is_global() ? static_cast<std::uint64_t>(order.rows()) * sizeof(RowChecksum) : 0;
  return options.layers.size() * 2 * (batches * tensor_bytes(format, slice) + checksums);
}

ActivationLoader::ActivationLoader(const ActivationCacheReader& cache, DataOrder order, LoaderOptions options)
    : cache_(cache),
      order_(order),
      options_(std::move(options)),
      planned_end_(options_.slice.first_sample),
      read_end_(options_.slice.first_sample) {
  check_options(options_);
  if (order_.rows() > cache_.rows()) {
    throw ConfigError("{}: {} rows to train on, the cache holds {}", cache_.directory().string(), order_.rows(),
                      cache_.rows());
  }
  for (const int layer : options_.layers) layer_indices_.push_back(cache_.layer_index(layer));
  std::size_t chunks = 0;
  for (const CacheShard& shard : cache_.manifest().shards) {
    first_chunk_of_.push_back(chunks);
    chunks += shard.datasets.front().chunks.size();
  }
  first_chunk_of_.push_back(chunks);
  if (order_.is_global()) {
    verified_ = std::vector<std::atomic<bool>>(options_.layers.size() * 2 * chunks);
    row_checksums_ = std::vector<RowChecksum>(options_.layers.size() * 2 * static_cast<std::size_t>(order_.rows()));
  }
  // A device is selected by thread: memory that it copies from is made here, not by the threads that fill it.
  if (options_.device != Device::kCpu)
    while (static_cast<std::int64_t>(free_slots_.size()) < most_slots(order_, options_.slice))
      free_slots_.push_back(new_slot());
  for (int i = 0; i < options_.threads; ++i) {
    threads_.emplace_back([this](const std::stop_token& stop) { work(stop); });
  }
}

std::int64_t ActivationLoader::wanted_end() const {
  return options_.slice.first_sample + (front_batch_ + 1) * options_.slice.batch_rows;
}

const ActivationBatch& ActivationLoader::next() {
  std::unique_lock lock(mutex_);
  if (in_use_) {
    free_slots_.push_back(std::move(slots_.front()));
    slots_.pop_front();
    ++front_batch_;
    in_use_ = false;
    changed_.notify_all();
  }
  const auto start = std::chrono::steady_clock::now();
  changed_.wait(lock, [&] { return read_end_ >= wanted_end() || failure_; });
  stall_seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (read_end_ < wanted_end()) std::rethrow_exception(failure_);
  in_use_ = true;
  ActivationBatch& batch = slots_.front()->batch;
  batch.first_sample =
      options_.slice.first_sample + front_batch_ * options_.slice.batch_rows + options_.slice.slice_begin;
  return batch;
}

std::uint64_t ActivationLoader::allocated_bytes() const {
  const std::lock_guard lock(mutex_);
  return (slots_.size() + free_slots_.size()) * options_.layers.size() * 2 *
         tensor_bytes(cache_.manifest().format, options_.slice);
}

/// At most one block beyond that in which the wanted batch ends.
bool ActivationLoader::may_plan() const {
  return !planning_ && last_planned_begin_ < wanted_end() && planned_end_ < options_.end_sample;
}

ActivationLoader::Block* ActivationLoader::claimable() const {
  const auto found =
      std::find_if(blocks_.begin(), blocks_.end(), [](const auto& block) { return block->claimed < block->tasks; });
  return found == blocks_.end() ? nullptr : found->get();
}

void ActivationLoader::work(const std::stop_token& stop) {
  Worker worker;
  std::unique_lock lock(mutex_);
  while (changed_.wait(lock, stop, [&] { return !failure_ && (claimable() != nullptr || may_plan()); }) &&
         !stop.stop_requested()) {
    try {
      if (Block* block = claimable(); block != nullptr) {
        run_task(lock, *block, worker);
      } else {
        plan_next_block(lock);
      }
    } catch (...) {
      if (!lock.owns_lock()) lock.lock();
      if (!failure_) failure_ = std::current_exception();
      changed_.notify_all();
    }
  }
}

void ActivationLoader::plan_next_block(std::unique_lock<std::mutex>& lock) {
  planning_ = true;
  const BatchSlice& slice = options_.slice;
  const std::int64_t begin = planned_end_;
  lock.unlock();
  auto block = std::make_unique<Block>();
  block->plan = plan_block(cache_.manifest().shards, order_, slice, begin);
  // Several pieces per thread, so that threads end together.
  block->pieces = std::min(block->plan.chunks.size(), 4 * static_cast<std::size_t>(options_.threads));
  block->tasks = block->pieces * 2 * options_.layers.size();
  lock.lock();
  for (std::int64_t batch = slice.batch(begin); batch <= slice.batch(block->plan.end - 1); ++batch) {
    const auto place = static_cast<std::size_t>(batch - front_batch_);
    while (slots_.size() <= place) add_slot();
    block->slots.push_back(slots_[place].get());
  }
  last_planned_begin_ = begin;
  planned_end_ = block->plan.end;
  blocks_.push_back(std::move(block));
  retire_read_blocks();
  planning_ = false;
  changed_.notify_all();
}

void ActivationLoader::add_slot() {
  if (free_slots_.empty()) {
    slots_.push_back(new_slot());
    return;
  }
  slots_.push_back(std::move(free_slots_.back()));
  free_slots_.pop_back();
}

std::unique_ptr<ActivationLoader::Slot> ActivationLoader::new_slot() const {
  const std::size_t bytes = tensor_bytes(cache_.manifest().format, options_.slice);
  const Shape shape{options_.slice.rows(), cache_.width()};
  auto slot = std::make_unique<Slot>();
  const auto size = static_cast<std::int64_t>(options_.layers.size() * 2 * bytes);
  slot->memory = Buffer::pinned(options_.device, DType::kInt8, {size});
  // What a device copies from must stay where it is.
  if (options_.device == Device::kCpu) prefer_large_pages(slot->memory);
  auto* memory = static_cast<std::byte*>(slot->memory.data());
  for (std::size_t i = 0; i < options_.layers.size(); ++i, memory += 2 * bytes) {
    slot->batch.layers.push_back(
        {Tensor(memory, cache_.row_dtype(), shape), Tensor(memory + bytes, cache_.row_dtype(), shape)});
  }
  return slot;
}

void ActivationLoader::run_task(std::unique_lock<std::mutex>& lock, Block& block, Worker& worker) {
  const std::size_t task = block.claimed++;
  lock.unlock();
  read(block, task, worker);
  lock.lock();
  ++block.done;
  retire_read_blocks();
}

void ActivationLoader::retire_read_blocks() {
  while (!blocks_.empty() && blocks_.front()->done == blocks_.front()->tasks) {
    read_end_ = blocks_.front()->plan.end;
    blocks_.pop_front();
    changed_.notify_all();
  }
}

void ActivationLoader::read(const Block& block, std::size_t task, Worker& worker) {
  const std::size_t piece = task % block.pieces, layer = task / block.pieces / 2;
  const RowKind kind = task / block.pieces % 2 == 0 ? RowKind::kInput : RowKind::kDelta;
  const BatchSlice& slice = options_.slice;
  const BlockPlan& plan = block.plan;
  const std::size_t row_bytes = static_cast<std::size_t>(cache_.width()) * bytes_per_element(cache_.row_dtype());
  const std::size_t end = plan.chunks.size() * (piece + 1) / block.pieces;
  for (std::size_t c = plan.chunks.size() * piece / block.pieces; c < end; ++c) {
    const ChunkRows& chunk = plan.chunks[c];
    const auto shard = cache_.shard(chunk.shard);
    worker.wanted.clear();
    for (std::size_t i = chunk.begin; i < chunk.end; ++i) {
      const SampleRow& one = plan.rows[i];
      const auto batch = static_cast<std::size_t>(slice.batch(one.sample) - slice.batch(plan.begin));
      const ActivationBatch::Layer& to = block.slots[batch]->batch.layers[layer];
      auto* data = static_cast<std::byte*>((kind == RowKind::kInput ? to.x : to.delta).data());
      worker.wanted.push_back(
          {one.row - shard->shard().first_row, data + static_cast<std::size_t>(slice.place(one.sample)) * row_bytes});
    }
    gather(*shard, layer, kind, chunk, worker);
  }
}

void ActivationLoader::gather(const ShardReader& shard, std::size_t layer, RowKind kind, const ChunkRows& chunk,
                              Worker& worker) {
  const std::size_t index = layer_indices_[layer];
  if (!order_.is_global()) {
    shard.gather_chunk(index, kind, chunk.chunk, worker.wanted, worker.scratch);
    return;
  }
  // Reading single rows pays as long as they are few.
  constexpr std::int64_t kFewRows = 8;
  const std::size_t tensor = layer * 2 + static_cast<std::size_t>(kind);
  std::atomic<bool>& verified =
      verified_[tensor * first_chunk_of_.back() + first_chunk_of_[chunk.shard] + static_cast<std::size_t>(chunk.chunk)];
  const std::int64_t chunk_rows = shard.shard().datasets.front().layout.chunk_rows;
  const std::int64_t first_row = shard.shard().first_row + chunk.chunk * chunk_rows;
  const std::int64_t rows =
      std::min({chunk_rows, shard.shard().rows - chunk.chunk * chunk_rows, order_.rows() - first_row});
  const auto checksums =
      std::span(row_checksums_)
          .subspan(tensor * static_cast<std::size_t>(order_.rows()) + static_cast<std::size_t>(first_row),
                   static_cast<std::size_t>(rows));
  if (verified && static_cast<std::int64_t>(worker.wanted.size()) * kFewRows < chunk_rows) {
    shard.gather_rows(index, kind, chunk.chunk, worker.wanted, worker.scratch, checksums);
    return;
  }
  shard.gather_chunk(index, kind, chunk.chunk, worker.wanted, worker.scratch, checksums);
  verified = true;
}

}  // namespace tadapt
