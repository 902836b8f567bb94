// `tadapt-dist verify`: reads all of a cache, checkpoint, run or model and says everything that is wrong.
#include <fmt/format.h>

#include "data/activation_cache_verify.h"
#include "data/checkpoint.h"
#include "data/model_files.h"
#include "launcher/arguments.h"
#include "launcher/artifact.h"
#include "launcher/commands.h"
#include "runtime/eval/adapter_set.h"
#include "runtime/model/decoder_config.h"
#include "runtime/train/run_directory.h"

namespace tadapt {
namespace {

namespace fs = std::filesystem;
using Problems = std::vector<std::string>;

Problems verify(const fs::path& path, const Process& process);

Problems verify_run(const fs::path& path, const Process& process) {
  const RunOptions options = options_of_run(process.files, path);
  std::vector<fs::path> parts = list_checkpoints(process.files, path / "checkpoints");
  if (process.files.exists(cache_directory(options))) parts.push_back(cache_directory(options));
  Problems problems;
  for (const fs::path& part : parts) {
    const Problems found = verify(part, process);
    problems.insert(problems.end(), found.begin(), found.end());
  }
  return problems;
}

Problems verify_model(const fs::path& path, const Process& process) {
  load_decoder_config(process.files, path);
  const std::size_t tensors = ModelFiles(path).names().size();
  process.print(
      fmt::format("{}: {} tensors lie whole in their files (a model has no checksums)", path.string(), tensors));
  return {};
}

/// Problems as lines; what cannot even be opened is a problem too.
Problems verify(const fs::path& path, const Process& process) try {
  switch (kind_of(process.files, path)) {
    case ArtifactKind::kCache:
      return verify_cache(ActivationCacheReader(process.files, path, CacheOpen::kDamaged));
    case ArtifactKind::kCheckpoint:
      verify_checkpoint(process.files, path);
      return {};
    case ArtifactKind::kRun:
      return verify_run(path, process);
    case ArtifactKind::kAdapters:
      load_adapters(process.files, path, {});
      return {};
    case ArtifactKind::kModel:
      return verify_model(path, process);
  }
  return {};
} catch (const DataError& error) {
  return {error.what()};
}

}  // namespace

int verify_command(const Words& words, const Process& process) {
  const CommandSyntax syntax{.usage = "verify PATH",
                             .about =
                                 "Reads every byte of a cache, a checkpoint or all of a run directory and compares\n"
                                 "checksums; checks that a model's tensors lie whole in their files.",
                             .operands = {"PATH"}};
  const auto arguments = parse_arguments(syntax, words, process);
  if (!arguments || process.session.rank() != 0) return static_cast<int>(ExitCode::kDone);
  const fs::path path = process.current_directory / text_of(*arguments, "PATH");
  const Problems problems = verify(path, process);
  for (const std::string& problem : problems) process.print(problem);
  if (!problems.empty()) throw DataError("{}: {} problems found", path.string(), problems.size());
  process.print(fmt::format("{}: no problems", path.string()));
  return static_cast<int>(ExitCode::kDone);
}

}  // namespace tadapt
