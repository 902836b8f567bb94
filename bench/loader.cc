// The cache loader's GB/s, checksums on, beside plain preads of the same chunks into as much memory in the same run.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <memory>
#include <thread>
#include <vector>

#include "data/activation_cache_writer.h"
#include "data/activation_loader.h"
#include "runtime/plan/step_timer.h"
#include "tests/support/temporary_directory.h"

namespace tadapt {
namespace {

constexpr std::int64_t kWidth = 3584, kShards = 4, kShardRows = 4096, kRows = kShards * kShardRows;
constexpr std::int64_t kWindowRows = 4096, kBatchRows = 1024;
constexpr int kThreads = 2, kRepeats = 11;

double seconds_of(const auto& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

const std::vector<int> kLayers{0, 1};

/// Two layers at the width of a 7B model: 28 KB a row, some 470 MB.
void write_cache(FileSystem& files, const std::filesystem::path& directory) {
  ActivationCacheWriter writer(
      files, {directory, {.layers = kLayers, .width = kWidth, .sequences_per_shard = 1}, kShards, {}});
  std::vector<float> values(kShardRows * kWidth);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 977) - 488.0f;
  std::vector<std::int32_t> ids(kShardRows), positions(kShardRows);
  for (std::int32_t i = 0; i < kShardRows; ++i) positions[static_cast<std::size_t>(i)] = i;
  const Tensor rows = Tensor::of(std::span(values), {kShardRows, kWidth});
  for (std::int64_t shard = 0; shard < kShards; ++shard) {
    const std::vector<std::int64_t> sequences(kShardRows, shard);
    writer.write_shard(shard, {ids, sequences, positions, {{rows, rows}, {rows, rows}}});
  }
  writer.finalize();
}

/// Every chunk of rows once, by kThreads threads that take turns, into the places of a buffer one after the other.
class PlainReads {
 public:
  PlainReads(FileSystem& files, const ActivationCacheReader& cache, std::uint64_t memory_bytes)
      : memory_(Device::kCpu, memory_bytes) {
    for (const CacheShard& shard : cache.manifest().shards) {
      files_.push_back(files.open(cache.directory() / shard_file_name(shard.index), OpenMode::kRead));
      for (const CacheDataset& dataset : shard.datasets) {
        if (dataset.layout.shape.rank() != 2) continue;
        for (const CacheChunk& chunk : dataset.chunks) {
          chunks_.push_back({files_.back().get(), chunk.offset, dataset.layout.chunk_bytes()});
        }
      }
    }
  }

  void run() {
    std::atomic<std::size_t> next = 0;
    std::vector<std::jthread> threads;
    for (int i = 0; i < kThreads; ++i) {
      threads.emplace_back([&] {
        for (std::size_t c = next++; c < chunks_.size(); c = next++) {
          const Chunk& chunk = chunks_[c];
          auto* memory = static_cast<std::byte*>(memory_.data());
          chunk.file->read(chunk.offset, {memory + c % (memory_.bytes() / chunk.bytes) * chunk.bytes, chunk.bytes});
        }
      });
    }
  }

 private:
  struct Chunk {
    const File* file;
    std::uint64_t offset;
    std::size_t bytes;
  };
  Buffer memory_;
  std::vector<std::unique_ptr<File>> files_;
  std::vector<Chunk> chunks_;
};

void take_rows(ActivationLoader& loader, std::int64_t rows) {
  for (; rows > 0; rows -= kBatchRows) loader.next();
}

void run() {
  const testing::TemporaryDirectory directory;
  RealFileSystem files;
  write_cache(files, directory.path());
  const ActivationCacheReader cache(files, directory.path());
  const DataOrder order = DataOrder::window(kRows, kWindowRows, 1);
  const LoaderOptions options{kLayers, {kBatchRows, 0, kBatchRows, 0}, kThreads};
  PlainReads plain(files, cache, loader_memory_bytes(cache.manifest().format, order, options));
  ActivationLoader loader(cache, order, options);
  std::vector<double> loader_seconds, plain_seconds;
  take_rows(loader, kRows);
  plain.run();
  for (int i = 0; i < kRepeats; ++i) {
    take_rows(loader, 2 * kWindowRows);  // uses up what was read ahead: from here on the loader is what limits
    loader_seconds.push_back(seconds_of([&] { take_rows(loader, kRows); }));
    std::this_thread::sleep_for(std::chrono::milliseconds(400));  // until it has read ahead and rests
    plain_seconds.push_back(seconds_of([&] { plain.run(); }));
  }
  const double gigabytes = static_cast<double>(kRows * kWidth * 2 * 2) * static_cast<double>(kLayers.size()) / 1e9;
  const double loaded = gigabytes / median(loader_seconds), read = gigabytes / median(plain_seconds);
  std::printf("loader  %6.2f GB/s  (bfloat16 rows of %lld, order: window, CRC32C on, %d threads)\n", loaded,
              static_cast<long long>(kWidth), kThreads);
  std::printf("pread   %6.2f GB/s  (same chunks, threads and amount of memory, no checksum)\n", read);
  std::printf("ratio   %6.3f       (target 0.9; medians of %d interleaved runs)\n", loaded / read, kRepeats);
}

}  // namespace
}  // namespace tadapt

int main() {
  try {
    tadapt::run();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_loader: %s\n", error.what());
    return 1;
  }
}
