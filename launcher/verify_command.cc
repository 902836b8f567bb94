// `tadapt-dist verify`: reads all of a cache, checkpoint, run or model and says everything that is wrong.
#include <fmt/format.h>

#include "data/activation_cache_verify.h"
#include "data/checkpoint.h"
#include "data/json.h"
#include "data/model_files.h"
#include "launcher/arguments.h"
#include "launcher/artifact.h"
#include "launcher/commands.h"
#include "runtime/bundle/load_export.h"
#include "runtime/bundle/non_finite.h"
#include "runtime/model/decoder_config.h"
#include "runtime/train/run_directory.h"

namespace tadapt {
namespace {

namespace fs = std::filesystem;
using Problems = std::vector<std::string>;

void append(Problems& problems, const Problems& more) { problems.insert(problems.end(), more.begin(), more.end()); }

Problems verify(const fs::path& path, const Process& process);

/// Checkpoints and cache, by the rule by which training finds them; says what is not there.
Problems verify_run(const fs::path& path, const Process& process) {
  std::vector<fs::path> parts = list_checkpoints(process.files, path / "checkpoints");
  if (parts.empty()) process.print(fmt::format("{}: there are no checkpoints", (path / "checkpoints").string()));
  const RunOptions options = options_of_run(process.files, path);
  const fs::path cache = cache_directory(options);
  if (options.cache.source == RowSource::kDisk && process.files.exists(cache)) parts.push_back(cache);
  if (options.cache.source == RowSource::kDisk && !process.files.exists(cache))
    process.print(fmt::format("{}: the cache is not there", cache.string()));
  if (parts.empty()) return {fmt::format("{}: neither checkpoints nor a cache: nothing to verify", path.string())};
  Problems problems;
  for (const fs::path& part : parts) append(problems, verify(part, process));
  return problems;
}

Problems verify_checkpoint_parts(const fs::path& path, const Process& process) {
  const CheckpointInfo checkpoint = open_checkpoint(process.files, path);
  Problems problems;
  for (const auto& [name, record] : checkpoint.parts) try {
      verify_file(process.files, path / name, record);
    } catch (const Error& error) {
      problems.emplace_back(error.what());
    }
  return problems;
}

/// Tensors of a model directory that hold numbers that are not finite.
Problems non_finite_tensors(const fs::path& path) {
  const ModelFiles model(path);
  Problems problems;
  for (const std::string& name : model.names()) {
    const std::string problem = non_finite_numbers(model.tensor(name));
    if (!problem.empty())
      problems.push_back(fmt::format("{}: {}: {}", model.file_of(name).path().string(), in_quotes(name), problem));
  }
  return problems;
}

Problems verify_model(const fs::path& path, const Process& process) {
  load_decoder_config(process.files, path);
  process.print(fmt::format("{}: no checksums: tensors must lie whole in their files and be finite", path.string()));
  return non_finite_tensors(path);
}

Problems verify_adapters(const fs::path& path, const Process& process) {
  Problems problems;
  if (process.files.exists(path / kExportDescription)) {
    problems = verify_export(process.files, path);
  } else {
    process.print(fmt::format("{}: no checksums: tensors must lie whole in their files and be finite", path.string()));
  }
  if (problems.empty()) load_adapters(process.files, path, {});
  if (process.files.exists(path / "config.json")) append(problems, non_finite_tensors(path));
  return problems;
}

Problems verify(ArtifactKind kind, const fs::path& path, const Process& process) {
  process.print(fmt::format("{}: reading", path.string()));
  switch (kind) {
    case ArtifactKind::kCache:
      return verify_cache(ActivationCacheReader(process.files, path, CacheOpen::kDamaged));
    case ArtifactKind::kCheckpoint:
      return verify_checkpoint_parts(path, process);
    case ArtifactKind::kRun:
      return verify_run(path, process);
    case ArtifactKind::kAdapters:
      return verify_adapters(path, process);
    case ArtifactKind::kModel:
      return verify_model(path, process);
  }
  return {};
}

/// Problems as lines; what cannot even be opened is a problem too.
Problems verify(const fs::path& path, const Process& process) try {
  return verify(kind_of(process.files, path), path, process);
} catch (const Error& error) {
  return {error.what()};
}

}  // namespace

int verify_command(const Words& words, const Process& process) {
  const CommandSyntax syntax{.usage = "verify PATH",
                             .about =
                                 "Reads every byte of a cache, a checkpoint, an export or all of these in a run\n"
                                 "directory, compares checksums and looks for numbers that are not finite. A model\n"
                                 "has no checksums: its tensors must lie whole in their files and be finite.",
                             .operands = {"PATH"}};
  const auto arguments = parse_arguments(syntax, words, process);
  if (!arguments || process.session.rank() != 0) return static_cast<int>(ExitCode::kDone);
  const fs::path path = process.current_directory / text_of(*arguments, "PATH");
  kind_of(process.files, path);  // a path that is nothing of ours is another error than a damaged one
  const Problems problems = verify(path, process);
  for (const std::string& problem : problems) process.print(problem);
  if (!problems.empty())
    throw DataError("{}: {} problem{} found", path.string(), problems.size(), problems.size() == 1 ? "" : "s");
  process.print(fmt::format("{}: no problems", path.string()));
  return static_cast<int>(ExitCode::kDone);
}

}  // namespace tadapt
