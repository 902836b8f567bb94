#include "launcher/asked_models.h"

#include <cmath>
#include <limits>

#include "launcher/artifact.h"
#include "launcher/edit_flags.h"
#include "launcher/run_config.h"
#include "runtime/train/run_directory.h"

namespace tadapt {
namespace {

namespace fs = std::filesystem;
namespace po = boost::program_options;

constexpr OptionFlag kFlags[] = {
    {"base", "model.base"}, {"target", "model.target"}, {"format", "corpus.format"}, {"device", "grid.device"}};

}  // namespace

void add_asking_flags(po::options_description& flags, Edits edits) {
  add_option_flags(flags, kFlags);
  if (edits == Edits::kSome) add_edit_flags(flags);
  auto add = flags.add_options();
  const auto number = [](const char* otherwise) {
    return po::value<std::string>()->value_name("N")->default_value(otherwise);
  };
  add("samples", number("1"), "responses to each prompt");
  add("temperature", number("0.7"), "0: always the first choice");
  add("top-p", number("1"), "draw among the most probable tokens that together have this probability");
  add("max-new-tokens", number("32768"), "longest response; the model's positions bound it too");
  add("seed", number("0"), "of the draws; a response depends on it, its prompt and its number only");
  add("batch", number("128"), "sequences that advance side by side on a rank");
  add("cache-gib", number("2"), "GiB for keys and values on a rank; at least one whole sequence");
}

AskedModels asked_models(const ParsedArguments& arguments, const Process& process) {
  AskedModels asked;
  if (arguments.count("PATH") > 0) {
    const fs::path path = process.current_directory / text_of(arguments, "PATH");
    asked.adapters = {.path = path, .edit = edit_of(arguments, process)};
    if (kind_with_adapters(process.files, path) == ArtifactKind::kRun) {
      asked.run = path;
      asked.options = overridden(options_of_run(process.files, path), arguments, kFlags, process);
      return asked;
    }
  }
  if (asked.adapters.path.empty() && !edit_of(arguments, process).to_string().empty())
    throw ConfigError("features are edited of adapters: name a run, checkpoint or export");
  asked.options = options_of(arguments, kFlags, WithoutConfig::kDefaults, process);
  return asked;
}

GenerationOptions generation_options(const ParsedArguments& arguments) {
  constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
  GenerationOptions options;
  options.rule.temperature = number_of<float>(arguments, "temperature", 0.0f, 100.0f);
  options.rule.top_p = number_of<double>(arguments, "top-p", 1e-6, 1.0);
  options.max_new_tokens = number_of<std::int64_t>(arguments, "max-new-tokens", 1, kMost);
  options.seed = number_of<std::uint64_t>(arguments, "seed", 0, std::numeric_limits<std::uint64_t>::max());
  options.batch_sequences = number_of<std::int64_t>(arguments, "batch", 1, 65536);
  options.cache_bytes = static_cast<std::int64_t>(number_of<double>(arguments, "cache-gib", 0.0, 1e6) * 0x1p30);
  return options;
}

std::int64_t samples_of(const ParsedArguments& arguments) {
  return number_of<std::int64_t>(arguments, "samples", 1, 65535);
}

}  // namespace tadapt
