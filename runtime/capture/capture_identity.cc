#include "runtime/capture/capture_identity.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "data/activation_cache_reader.h"
#include "data/json.h"

namespace tadapt {
namespace {

constexpr std::uint64_t kPlanCapBytes = 1 << 20;

/// Everything that decides the bytes of a cache, as text by key.
Provenance described(const CacheFormat& format, const Provenance& provenance) {
  Provenance all = provenance;
  all["layers"] = fmt::format("{}", fmt::join(format.layers, ","));
  all["width"] = std::to_string(format.width);
  all["cache.rows"] = name(format.row_dtype);
  all["cache.chunk_bytes"] = std::to_string(format.chunk_bytes);
  all["cache.sequences_per_shard"] = std::to_string(format.sequences_per_shard);
  return all;
}

Provenance parse_plan(const std::string& text, const std::filesystem::path& path) {
  const nlohmann::json root = parse_json(text, path);
  Provenance found;
  if (!root.is_object()) throw DataError("{}: not a JSON object", path.string());
  for (const auto& [key, value] : root.items()) {
    if (!value.is_string()) throw DataError("{}: {} is not a string", path.string(), in_quotes(key));
    found.emplace(key, value.get<std::string>());
  }
  return found;
}

/// The first shard file of a cache that is missing or of another size than was written, in words; empty: none.
std::string first_damage(FileSystem& files, const std::filesystem::path& directory) {
  const ActivationCacheReader cache(files, directory, CacheOpen::kDamaged);
  for (std::size_t i = 0; i < cache.manifest().shards.size(); ++i) {
    if (std::string damage = cache.shard_file_problem(i); !damage.empty()) return damage;
  }
  return {};
}

void require_same(const std::filesystem::path& path, const Provenance& found, const Provenance& wanted) {
  std::string differences;
  for (const auto& [key, wanted_text] : wanted) {
    const auto here = found.find(key);
    const std::string found_text = here == found.end() ? "nothing" : here->second;
    if (found_text == wanted_text) continue;
    differences +=
        fmt::format("{}{}: {} there, {} wanted", differences.empty() ? "" : "; ", key, found_text, wanted_text);
  }
  if (differences.empty()) return;
  throw ConfigError("{}: begun by another capture ({}); choose another directory or remove this one", path.string(),
                    differences);
}

}  // namespace

CaptureState capture_state(FileSystem& files, const CaptureIdentity& identity) {
  const Provenance wanted = described(identity.format, identity.provenance);
  const std::filesystem::path manifest_path = identity.directory / kManifestFile;
  if (files.exists(manifest_path)) {
    const CacheManifest manifest = parse_manifest(read_text(files, manifest_path), manifest_path);
    Provenance found = described(manifest.format, manifest.provenance);
    const bool is_whole = first_damage(files, identity.directory).empty();
    // A whole cache also serves some of its layers; one with a hole can only be mended for all of them.
    if (is_whole && std::ranges::includes(manifest.format.layers, identity.format.layers))
      found["layers"] = wanted.at("layers");
    require_same(manifest_path, found, wanted);
    return is_whole ? CaptureState::kComplete : CaptureState::kBegun;
  }
  const std::filesystem::path plan_path = identity.directory / kCapturePlanFile;
  if (!files.exists(plan_path)) return CaptureState::kNew;
  require_same(plan_path, parse_plan(read_text(files, plan_path, kPlanCapBytes), plan_path), wanted);
  return CaptureState::kBegun;
}

void begin_capture(FileSystem& files, const CaptureIdentity& identity) {
  files.make_directories(identity.directory);
  const nlohmann::json plan = described(identity.format, identity.provenance);
  write_atomically(files, identity.directory / kCapturePlanFile, plan.dump(1) + "\n");
}

}  // namespace tadapt
