// A sweep beside the single runs it is made of: bytes read of the cache, seconds, and whether every run comes out
// alike.
//   bench_sweep CONFIG DIRECTORY [STEPS]
// Trains five dictionary sizes times three sparsity weights, each alone and then side by side, into DIRECTORY, which is
// emptied. The bound is one run's wait for data and the single runs' compute; checkpoints are left out on both sides.
#include <atomic>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

#include "data/checkpoint.h"
#include "data/observed_files.h"
#include "launcher/run_config.h"
#include "runtime/sweep/sweep_run.h"
#include "runtime/train/train_run.h"

namespace tadapt {
namespace {

namespace fs = std::filesystem;

constexpr double kAllowed = 1.1;

/// Of one run's timing.jsonl.
struct Spent {
  double waiting = 0.0, computing = 0.0;
};

Spent spent_by(const fs::path& run) {
  std::ifstream lines(run / "timing.jsonl");
  nlohmann::json last;
  for (std::string line; std::getline(lines, line);) last = nlohmann::json::parse(line);
  const double waiting = last.at("data_stall_seconds"), saving = last.at("checkpoint_seconds");
  return {waiting, last.at("seconds").get<double>() - saving - waiting};
}

/// The manifest of a run's last checkpoint: names, sizes and checksums of all that was saved.
std::string last_manifest(FileSystem& files, const fs::path& run) {
  return read_text(files, list_checkpoints(files, run / "checkpoints").front() / "MANIFEST");
}

int run(const fs::path& config, const fs::path& directory, const std::string& steps) {
  RealFileSystem disk;
  std::atomic<std::uint64_t> rows_read = 0;
  ObservedFileSystem files(disk, [&](const FileTransfer& transfer) {
    if (transfer.path.extension() == ".h5") rows_read += transfer.read;
  });
  fs::remove_all(directory);
  RunOptions options = load_options(files, config,
                                    {{"bench", "train.steps", steps},
                                     {"bench", "train.evaluate_every_steps", "0"},
                                     {"bench", "train.held_out_tokens", "0"},
                                     {"bench", "checkpoint.every_steps", "0"},
                                     {"bench", "log.every_seconds", "1e9"},
                                     {"bench", "cache.dir", (directory / "cache").string()}},
                                    fs::current_path());
  SelfCommunicator world;
  Context context = Context::cpu(threads_per_rank(1));
  const RunEnvironment environment{.files = files,
                                   .world = world,
                                   .context = context,
                                   .who = "bench",
                                   .print = [](const std::string&) {},
                                   .stop_requested = [] { return false; },
                                   .heartbeat = [](const std::string&) {}};
  const std::vector<SweepPoint> points =
      points_of({{512, 1024, 2048, 4096, 8192}, {1e-3, 1e-2, 1e-1}, {options.train.seed}});

  // The first run also captures the cache, which reads it back.
  RunOptions warm = options_of(points.front(), options, directory / "warm");
  run_training(warm, environment);
  std::uint64_t bytes_of_one = 0;
  Spent alone;
  for (const SweepPoint& point : points) {
    const RunOptions single = options_of(point, options, directory / "alone");
    const std::uint64_t before = rows_read;
    run_training(single, environment);
    bytes_of_one = std::max<std::uint64_t>(bytes_of_one, rows_read - before);
    const Spent one = spent_by(single.dir);
    alone.waiting = std::max(alone.waiting, one.waiting);
    alone.computing += one.computing;
    std::printf("alone %-20s waiting %7.3f s, computing %7.3f s, read %llu bytes\n", point.name().c_str(), one.waiting,
                one.computing, static_cast<unsigned long long>(rows_read - before));
  }
  const std::uint64_t before = rows_read;
  run_sweep({.options = options, .directory = directory / "together", .points = points, .evaluates = false},
            environment);
  const std::uint64_t bytes = rows_read - before;
  const Spent together = spent_by(directory / "together/runs" / points.front().name());
  int equal = 0;
  for (const SweepPoint& point : points)
    equal += last_manifest(files, directory / "alone/runs" / point.name()) ==
                     last_manifest(files, directory / "together/runs" / point.name())
                 ? 1
                 : 0;
  const double seconds = together.waiting + together.computing, bound = alone.waiting + alone.computing;
  std::printf("together: waiting %.3f s, computing %.3f s\n", together.waiting, together.computing);
  std::printf("bytes read of the cache: %llu; one run alone: %llu\n", static_cast<unsigned long long>(bytes),
              static_cast<unsigned long long>(bytes_of_one));
  std::printf("seconds: %.3f; one run's waiting and all runs' computing: %.3f; ratio %.3f, at most %.1f is wanted\n",
              seconds, bound, seconds / bound, kAllowed);
  std::printf("runs whose last checkpoints are the same bytes: %d of %zu\n", equal, points.size());
  return equal == static_cast<int>(points.size()) && bytes == bytes_of_one && seconds <= kAllowed * bound ? 0 : 1;
}

}  // namespace
}  // namespace tadapt

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: bench_sweep CONFIG DIRECTORY [STEPS]\n");
    return 2;
  }
  return tadapt::run(argv[1], argv[2], argc > 3 ? argv[3] : "100");
}
