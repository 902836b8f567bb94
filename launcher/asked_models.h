// What generate and benchmark have in common on the command line: whose responses, drawn how.
#pragma once

#include <filesystem>

#include "launcher/arguments.h"
#include "runtime/bundle/feature_edit.h"
#include "runtime/model/generation.h"

namespace tadapt {

/// Models and adapters as the command line names them.
struct AskedModels {
  RunOptions options;
  AdapterSource adapters;     ///< of a run, checkpoint or export; with an empty path when none was named
  std::filesystem::path run;  ///< the run's directory when a run was named
};

/// Whether a command lets adapters be edited.
enum class Edits : std::uint8_t { kNone, kSome };

/// Adds --config, --set, models, format, device, edits of adapters and everything that says how responses are drawn.
void add_asking_flags(boost::program_options::options_description& flags, Edits edits);

/// From PATH, which may be missing, and flags: a run knows its models, for all else a configuration or flags name them.
AskedModels asked_models(const ParsedArguments& arguments, const Process& process);

/// Temperature, top-p, length, seed, batch and cache. ConfigError naming the flag, what was expected and what was
/// found.
GenerationOptions generation_options(const ParsedArguments& arguments);
/// --samples, at least 1.
std::int64_t samples_of(const ParsedArguments& arguments);

}  // namespace tadapt
