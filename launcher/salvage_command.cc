// `tadapt-dist salvage`: what can still be had of a damaged activation cache.
#include <fmt/format.h>

#include "data/activation_cache_salvage.h"
#include "launcher/arguments.h"
#include "launcher/artifact.h"
#include "launcher/commands.h"
#include "runtime/capture/capture_identity.h"
#include "runtime/train/prepare_cache.h"

namespace tadapt {
namespace {

namespace fs = std::filesystem;
namespace po = boost::program_options;

CommandSyntax syntax() {
  CommandSyntax syntax{.usage = "salvage CACHE [--out DIR]",
                       .about =
                           "Looks for damage in an activation cache. Damaged shards are set aside, so that the same\n"
                           "capture or train command makes them anew and leaves the whole ones alone. With --out the\n"
                           "cache stays as it is, and DIR becomes one of all rows that can be read.",
                       .operands = {"CACHE"}};
  syntax.flags.add_options()("out", po::value<std::string>()->value_name("DIR"), "a cache of what can be read");
  return syntax;
}

void repair(const ActivationCacheReader& cache, const std::vector<std::int64_t>& damaged, const Process& process) {
  const CacheManifest& manifest = cache.manifest();
  const std::unique_ptr<FileLock> lock = process.files.lock(cache.directory() / kCaptureLock, process.session.who());
  if (!process.files.exists(cache.directory() / kCapturePlanFile))
    begin_capture(process.files,
                  {.directory = cache.directory(), .format = manifest.format, .provenance = manifest.provenance});
  set_shards_aside(process.files, cache.directory(), damaged);
  process.print(
      fmt::format("{}: {} of {} shards are damaged and set aside; start the same capture or train command "
                  "again: it makes them anew, with the same bytes",
                  cache.directory().string(), damaged.size(), manifest.shards.size()));
}

}  // namespace

int salvage_command(const Words& words, const Process& process) {
  const auto arguments = parse_arguments(syntax(), words, process);
  if (!arguments || process.session.rank() != 0) return static_cast<int>(ExitCode::kDone);
  const fs::path path = process.current_directory / text_of(*arguments, "CACHE");
  if (kind_of(process.files, path) != ArtifactKind::kCache)
    throw ConfigError("{}: is no activation cache", path.string());
  const ActivationCacheReader cache(process.files, path, CacheOpen::kDamaged);
  const std::vector<std::int64_t> damaged = damaged_shards(cache);
  if (damaged.empty()) {
    process.print(fmt::format("{}: nothing is damaged", path.string()));
    return static_cast<int>(ExitCode::kDone);
  }
  if (arguments->count("out") == 0) {
    repair(cache, damaged, process);
    return static_cast<int>(ExitCode::kDone);
  }
  const fs::path out = process.current_directory / text_of(*arguments, "out");
  const SalvagedRows salvaged = copy_readable_rows(process.files, cache, out);
  process.print(fmt::format("{}: {} rows; {} rows of {} damaged shards are lost", out.string(), salvaged.rows,
                            salvaged.lost, damaged.size()));
  return static_cast<int>(ExitCode::kDone);
}

}  // namespace tadapt
