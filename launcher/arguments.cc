#include "launcher/arguments.h"

#include <algorithm>
#include <boost/any.hpp>
#include <sstream>

#include "kernels/core/error.h"
#include "launcher/artifact.h"
#include "launcher/nearest.h"
#include "launcher/quoted.h"
#include "launcher/run_config.h"
#include "runtime/train/option_table.h"
#include "runtime/train/run_directory.h"

namespace tadapt {
namespace {

namespace po = boost::program_options;
namespace fs = std::filesystem;

std::string help(const CommandSyntax& syntax, const po::options_description& flags) {
  std::ostringstream text;
  text << "usage: tadapt-dist " << syntax.usage << "\n\n" << syntax.about << "\n\n" << flags;
  return text.str();
}

std::string nearest_flag(const std::string& word, const po::options_description& flags) {
  std::vector<std::string> names;
  for (const auto& flag : flags.options()) names.push_back("--" + flag->long_name());
  return nearest(word, names);
}

ParsedArguments parse(const CommandSyntax& syntax, const po::options_description& flags,
                      const std::vector<std::string>& words) {
  po::options_description all;
  all.add(flags);
  po::positional_options_description places;
  for (const auto* operands : {&syntax.operands, &syntax.optional_operands}) {
    for (const std::string& operand : *operands) {
      all.add_options()(operand.c_str(), po::value<std::string>());
      places.add(operand.c_str(), 1);
    }
  }
  if (!syntax.repeated_operand.empty()) {
    all.add_options()(syntax.repeated_operand.c_str(), po::value<std::vector<std::string>>());
    places.add(syntax.repeated_operand.c_str(), -1);
  }
  // Without allow_guessing: a beginning of a flag is no flag.
  constexpr int kStyle = po::command_line_style::unix_style & ~po::command_line_style::allow_guessing;
  ParsedArguments arguments;
  po::store(po::command_line_parser(words).options(all).positional(places).style(kStyle).run(), arguments);
  return arguments;
}

std::vector<Override> overrides_of(const ParsedArguments& arguments, std::span<const OptionFlag> short_forms) {
  std::vector<Override> overrides;
  if (arguments.count("set") > 0) {
    for (const std::string& assignment : arguments["set"].as<std::vector<std::string>>())
      overrides.push_back(parse_override(assignment));
  }
  for (const auto& [flag, key] : short_forms) {
    if (arguments.count(flag) > 0) overrides.push_back({std::string("--") + flag, key, text_of(arguments, flag)});
  }
  return overrides;
}

/// An empty word is a shell variable that is not set: never the default in silence.
void require_no_empty_words(const ParsedArguments& arguments, const po::options_description& flags,
                            const std::string& command) {
  for (const auto& [name, value] : arguments) {
    const po::option_description* flag = flags.find_nothrow(name, false);
    if (flag != nullptr && flag->semantic()->max_tokens() == 0) continue;
    const auto* text = boost::any_cast<std::string>(&value.value());
    const auto* words = flag == nullptr ? boost::any_cast<std::vector<std::string>>(&value.value()) : nullptr;
    if ((text != nullptr && text->empty()) || (words != nullptr && std::ranges::count(*words, "") > 0))
      throw ConfigError("{}: {}{} is given, but empty", command, flag == nullptr ? "" : "--", name);
  }
}

}  // namespace

std::optional<ParsedArguments> parse_arguments(const CommandSyntax& syntax, const std::vector<std::string>& words,
                                               const Process& process) {
  po::options_description flags("flags", 120, 60);
  for (const auto& flag : syntax.flags.options()) flags.add(flag);
  flags.add_options()("help,h", "show this help");
  const std::string command = syntax.usage.substr(0, syntax.usage.find(' '));
  try {
    ParsedArguments arguments = parse(syntax, flags, words);
    if (arguments.count("help") > 0) {
      process.print(help(syntax, flags));
      return std::nullopt;
    }
    std::vector<std::string> needed = syntax.operands;
    if (!syntax.repeated_operand.empty()) needed.push_back(syntax.repeated_operand);
    for (const std::string& operand : needed) {
      if (arguments.count(operand) == 0) throw ConfigError("{}: usage: tadapt-dist {}", command, syntax.usage);
    }
    require_no_empty_words(arguments, flags, command);
    return arguments;
  } catch (const po::unknown_option& error) {
    throw ConfigError("{}: unknown flag {}; did you mean {}?", command, quoted(error.get_option_name()),
                      nearest_flag(error.get_option_name(), flags));
  } catch (const po::too_many_positional_options_error&) {
    throw ConfigError("{}: more words than expected; usage: tadapt-dist {}", command, syntax.usage);
  } catch (const po::error& error) {
    throw ConfigError("{}: {}", command, error.what());
  }
}

std::string text_of(const ParsedArguments& arguments, const std::string& name) {
  return arguments.count(name) == 0 ? "" : arguments[name].as<std::string>();
}

std::filesystem::path path_of(const ParsedArguments& arguments, const std::string& name, const Process& process) {
  const std::string text = text_of(arguments, name);
  return text.empty() ? std::filesystem::path() : (process.current_directory / text).lexically_normal();
}

void add_option_flags(po::options_description& flags, std::span<const OptionFlag> short_forms) {
  auto add = flags.add_options();
  add("config", po::value<std::string>()->value_name("FILE"), "configuration; else $TADAPT_CONFIG, else ./tadapt.yaml");
  add("set", po::value<std::vector<std::string>>()->value_name("KEY=VALUE"),
      "sets one option of the configuration; may be repeated");
  for (const auto& [flag, key] : short_forms) {
    add(flag, po::value<std::string>()->value_name("VALUE"),
        fmt::format("{}: {}", key, find_option(key)->description).c_str());
  }
}

RunOptions options_of(const ParsedArguments& arguments, std::span<const OptionFlag> short_forms,
                      WithoutConfig without_config, const Process& process) {
  std::optional<fs::path> file = find_config(process.files, {.flag = text_of(arguments, "config"),
                                                             .environment = process.config_variable,
                                                             .current_directory = process.current_directory});
  if (!file && without_config == WithoutConfig::kToyPair) {
    file = bundled_config(process.files, process.executable);
    process.announce(fmt::format(
        "*** no configuration (--config, $TADAPT_CONFIG, ./tadapt.yaml): training the bundled toy pair, {} ***",
        file->string()));
  }
  return load_options(process.files, file, overrides_of(arguments, short_forms), process.current_directory);
}

RunOptions overridden(RunOptions options, const ParsedArguments& arguments, std::span<const OptionFlag> short_forms,
                      const Process& process) {
  if (arguments.count("config") > 0)
    throw ConfigError("--config: a run directory has its own configuration; --set changes it");
  for (const Override& override : overrides_of(arguments, short_forms))
    apply_override(options, override, process.current_directory);
  validate(options);
  return options;
}

RunOptions options_for_adapters(const std::filesystem::path& path, const ParsedArguments& arguments,
                                std::span<const OptionFlag> short_forms, const Process& process) {
  if (kind_with_adapters(process.files, path) == ArtifactKind::kRun)
    return overridden(options_of_run(process.files, path), arguments, short_forms, process);
  return options_of(arguments, short_forms, WithoutConfig::kDefaults, process);
}

}  // namespace tadapt
