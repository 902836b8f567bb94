// `tadapt-dist init`: a commented tadapt.yaml for a model pair and a corpus, with defaults that suit their sizes.
#include <fmt/format.h>

#include "kernels/core/host_memory.h"
#include "launcher/arguments.h"
#include "launcher/commands.h"
#include "launcher/quoted.h"
#include "launcher/run_config.h"
#include "launcher/suggest_options.h"

namespace tadapt {
namespace {

namespace fs = std::filesystem;
namespace po = boost::program_options;

RunOptions inputs_of(const ParsedArguments& arguments, const Process& process) {
  const auto path = [&](const char* flag) {
    const std::string text = text_of(arguments, flag);
    if (text.empty()) throw ConfigError("init: --{} is not given", flag);
    const fs::path found = (process.current_directory / text).lexically_normal();
    if (!process.files.exists(found)) throw MissingInputError("init: --{}: {} is not there", flag, found.string());
    return found;
  };
  RunOptions options;
  options.model = {.base = path("base"), .target = path("target")};
  options.corpus.train = path("corpus");
  return options;
}

}  // namespace

int init_command(const Words& words, const Process& process) {
  CommandSyntax syntax{
      .usage = "init --base DIR --target DIR --corpus FILE [--out FILE]",
      .about =
          "Writes a commented tadapt.yaml with options that suit the models, the corpus, and the disk\n"
          "and memory of this host."};
  auto add = syntax.flags.add_options();
  add("base", po::value<std::string>()->value_name("DIR"), "the base model");
  add("target", po::value<std::string>()->value_name("DIR"), "the model that was fine-tuned from it");
  add("corpus", po::value<std::string>()->value_name("FILE"), "JSONL file of conversations");
  add("out", po::value<std::string>()->value_name("FILE")->default_value("tadapt.yaml"), "the file to write");
  const auto arguments = parse_arguments(syntax, words, process);
  if (!arguments || process.session.rank() != 0) return static_cast<int>(ExitCode::kDone);

  const fs::path out = process.current_directory / text_of(*arguments, "out");
  if (process.files.exists(out))
    throw WriteError("{}: is already there; choose another --out or remove it", out.string());
  const RunOptions options =
      suggest_options(process.files, inputs_of(*arguments, process),
                      {.free_disk_bytes = process.files.free_bytes(out), .memory_bytes = host_memory_bytes()});
  validate(options);
  const std::string heading =
      fmt::format("# {} compared with {}, on {}.\n\n", quoted(options.model.target.filename()),
                  quoted(options.model.base.filename()), quoted(options.corpus.train.filename()));
  write_atomically(process.files, out, heading + print_config(options));
  process.print(fmt::format("{} written. Next: tadapt-dist train --dry-run --config {}", out.string(), out.string()));
  return static_cast<int>(ExitCode::kDone);
}

}  // namespace tadapt
