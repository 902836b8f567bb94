// `tadapt-dist export`: trained adapters in forms that others read.
#include <fmt/format.h>

#include "launcher/arguments.h"
#include "launcher/artifact.h"
#include "launcher/commands.h"
#include "launcher/edit_flags.h"
#include "runtime/export/export.h"
#include "runtime/export/package_exports.h"
#include "runtime/plan/estimate.h"
#include "runtime/train/run_directory.h"

namespace tadapt {
namespace {

namespace fs = std::filesystem;
namespace po = boost::program_options;

CommandSyntax syntax() {
  CommandSyntax syntax{
      .usage = "export PATH --format adapters|authors|circuit-tracer|sae-lens|sparsify --out DIR",
      .about =
          "Writes the adapters of a run, checkpoint or export. adapters: adapters.safetensors and adapters.json.\n"
          "authors: a Hugging Face directory of target, base MLPs and adapters together. circuit-tracer, sae-lens,\n"
          "sparsify: as these packages keep transcoders.",
      .operands = {"PATH"}};
  auto add = syntax.flags.add_options();
  add("format", po::value<std::string>()->value_name("FORMAT")->default_value("adapters"), "which form");
  add("out", po::value<std::string>()->value_name("DIR"), "a new or empty directory");
  add("base", po::value<std::string>()->value_name("DIR"), "base model; a run knows its own");
  add("target", po::value<std::string>()->value_name("DIR"), "target model; a run knows its own");
  add("model-name", po::value<std::string>()->value_name("NAME"),
      "what the packages call the target; default: its folder's name");
  add("k", po::value<std::int64_t>()->value_name("N"), "sparsify: most features active on a token; default: all");
  add_edit_flags(syntax.flags);
  return syntax;
}

/// The models of the run that `path` is, or those the flags name.
ModelOptions models_of(const ParsedArguments& arguments, const fs::path& path, const Process& process) {
  ModelOptions models;
  if (kind_of(process.files, path) == ArtifactKind::kRun) models = options_of_run(process.files, path).model;
  if (arguments.count("base") > 0) models.base = process.current_directory / text_of(arguments, "base");
  if (arguments.count("target") > 0) models.target = process.current_directory / text_of(arguments, "target");
  if (models.base.empty() || models.target.empty()) throw ConfigError("export: --base and --target are needed");
  return models;
}

PackageExport package_export(const ParsedArguments& arguments, const fs::path& path, const Process& process) {
  PackageExport how{.model_name = text_of(arguments, "model-name")};
  if (how.model_name.empty()) how.model_name = models_of(arguments, path, process).target.filename().string();
  if (arguments.count("k") > 0) how.k = arguments["k"].as<std::int64_t>();
  if (arguments.count("k") > 0 && how.k < 1) throw ConfigError("--k: expected at least 1, found {}", how.k);
  return how;
}

std::uint64_t write_export(ExportFormat format, const AdapterBundle& bundle, const ParsedArguments& arguments,
                           const fs::path& path, const Process& process) {
  const fs::path out = process.current_directory / text_of(arguments, "out");
  FileSystem& files = process.files;
  switch (format) {
    case ExportFormat::kAdapters:
      return export_adapters(files, bundle, out);
    case ExportFormat::kAuthors: {
      const ModelOptions models = models_of(arguments, path, process);
      return export_authors(files, bundle, models.base, models.target, out);
    }
    case ExportFormat::kCircuitTracer:
      return export_circuit_tracer(files, bundle, package_export(arguments, path, process), out);
    case ExportFormat::kSaeLens:
      return export_sae_lens(files, bundle, package_export(arguments, path, process), out);
    case ExportFormat::kSparsify:
      break;
  }
  return export_sparsify(files, bundle, package_export(arguments, path, process), out);
}

}  // namespace

int export_command(const Words& words, const Process& process) {
  const auto arguments = parse_arguments(syntax(), words, process);
  if (!arguments || process.session.rank() != 0) return static_cast<int>(ExitCode::kDone);
  const ExportFormat format = parse_export_format(text_of(*arguments, "format"));
  if (arguments->count("out") == 0) throw ConfigError("export: --out is not given");
  const fs::path path = process.current_directory / text_of(*arguments, "PATH");
  kind_with_adapters(process.files, path);
  const AdapterBundle bundle =
      load_edited_adapters(process.files, {.path = path, .edit = edit_of(*arguments, process)}, process.announce);
  const std::uint64_t bytes = write_export(format, bundle, *arguments, path, process);
  process.print(fmt::format("{}: {} layers of step {}, {}", text_of(*arguments, "out"), bundle.layers.size(),
                            bundle.step, readable_bytes(static_cast<std::int64_t>(bytes))));
  return static_cast<int>(ExitCode::kDone);
}

}  // namespace tadapt
