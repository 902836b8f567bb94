// Strict YAML and --set overrides to RunOptions and back: where a run's configuration comes from.
#pragma once

#include <filesystem>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "data/file.h"
#include "runtime/train/run_options.h"

namespace tadapt {

/// One option given on the command line.
struct Override {
  std::string flag;  ///< as the user wrote it, for messages: "--set", "--layers"
  std::string key;   ///< "train.steps"
  std::string text;
};

/// "train.steps=200" of `--set`; ConfigError when there is no '='.
Override parse_override(const std::string& assignment);

/// Where a configuration comes from, as the environment of the process says it.
struct ConfigSources {
  std::filesystem::path flag;               ///< --config; empty: not given
  std::filesystem::path environment;        ///< $TADAPT_CONFIG; empty: not set
  std::filesystem::path current_directory;  ///< ./tadapt.yaml is looked for here; --set paths start here
};

/// The configuration file: --config, $TADAPT_CONFIG, ./tadapt.yaml, in this order; nothing when there is none. A file
/// that was named but is not there is a MissingInputError naming who named it.
std::optional<std::filesystem::path> find_config(FileSystem& files, const ConfigSources& sources);

/// The bundled configuration of the toy pair: share/tadapt/configs/toy.yaml (an installed tree) or configs/toy.yaml
/// (the source tree) in the nearest folder above `executable` that has one; MissingInputError when none has.
std::filesystem::path bundled_config(FileSystem& files, const std::filesystem::path& executable);

/// Defaults, then the file (when there is one; relative paths start at its folder), then the overrides (relative paths
/// start at `current_directory`), checked. Empty run.dir and cache.dir are filled in. ConfigError names file:line (or
/// the flag), key, what was expected and what was found.
RunOptions load_options(FileSystem& files, const std::optional<std::filesystem::path>& file,
                        const std::vector<Override>& overrides, const std::filesystem::path& current_directory);

/// The steps of load_options, for text that is no file (tests, fuzzing).
void apply_yaml(RunOptions& options, const std::string& text, const std::string& label,
                const std::filesystem::path& folder);
void apply_override(RunOptions& options, const Override& override, const std::filesystem::path& current_directory);

/// Checks between options; ConfigError naming the keys.
void validate(const RunOptions& options);

/// ConfigError naming the first of these options (paths or texts) that is empty.
void require_set(const RunOptions& options, std::initializer_list<const char*> keys);

/// All options as commented YAML that reads back to equal options.
std::string print_config(const RunOptions& options);

/// The reference of all options, docs/configuration.md, as Markdown.
std::string options_manual();

}  // namespace tadapt
