// Flags of one command: parsing with help, and errors that name the nearest flag.
#pragma once

#include <boost/program_options.hpp>
#include <charconv>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "launcher/process.h"
#include "runtime/train/run_options.h"

namespace tadapt {

/// What a command understands.
struct CommandSyntax {
  std::string usage;  ///< "verify PATH"
  std::string about;  ///< a sentence or a few
  boost::program_options::options_description flags{};
  std::vector<std::string> operands = {};           ///< names of the words that are no flags, all of them needed
  std::vector<std::string> optional_operands = {};  ///< that may follow them
  std::string repeated_operand = {};                ///< all words behind those, at least one; empty: there may be none
};

using ParsedArguments = boost::program_options::variables_map;

/// Parses `words`. With --help it prints the help and returns nothing. ConfigError for unknown flags (naming the
/// nearest), missing or empty values (an unset shell variable), missing operands, and words too many.
std::optional<ParsedArguments> parse_arguments(const CommandSyntax& syntax, const std::vector<std::string>& words,
                                               const Process& process);

/// The text of a flag or operand; empty when it was not given.
std::string text_of(const ParsedArguments& arguments, const std::string& name);

/// The path that a flag or operand names, seen from the current folder; empty when it was not given.
std::filesystem::path path_of(const ParsedArguments& arguments, const std::string& name, const Process& process);

/// The number that a flag was given; ConfigError naming the flag, what was expected and what was found.
template <class T>
T number_of(const ParsedArguments& arguments, const std::string& flag, T lowest, T highest) {
  const std::string text = text_of(arguments, flag);
  T number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || !(lowest <= number && number <= highest))
    throw ConfigError("--{}: expected a number from {} to {}, found '{}'", flag, lowest, highest, text);
  return number;
}

/// A flag that is short for `--set key=…`.
struct OptionFlag {
  const char* flag;  ///< without dashes
  const char* key;
};

/// Adds --config, --set and these; their descriptions are the options' own.
void add_option_flags(boost::program_options::options_description& flags, std::span<const OptionFlag> short_forms);

/// What happens when no configuration is given or found.
enum class WithoutConfig { kToyPair, kDefaults };

/// The run's options from the configuration, --set and the short forms. With WithoutConfig::kToyPair and no
/// configuration, the bundled one is taken, and one loud line says so.
RunOptions options_of(const ParsedArguments& arguments, std::span<const OptionFlag> short_forms,
                      WithoutConfig without_config, const Process& process);

/// The options of a run directory, changed by --set and the short forms; --config is an error here.
RunOptions overridden(RunOptions options, const ParsedArguments& arguments, std::span<const OptionFlag> short_forms,
                      const Process& process);

/// For work with the adapters that `path` holds: overridden options of a run, which knows its models; else options_of,
/// with defaults where there is no configuration.
RunOptions options_for_adapters(const std::filesystem::path& path, const ParsedArguments& arguments,
                                std::span<const OptionFlag> short_forms, const Process& process);

}  // namespace tadapt
