#include "launcher/run_config.h"

#include <algorithm>
#include <bit>

#include "data/unicode.h"
#include "kernels/core/error.h"
#include "launcher/nearest.h"
#include "launcher/quoted.h"
#include "launcher/yaml_reader.h"
#include "runtime/loss/loss.h"
#include "runtime/train/bridging_options.h"
#include "runtime/train/option_table.h"
#include "runtime/train/run_shape.h"

namespace tadapt {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kConfigBytesCap = 1 << 20;

bool is_section(const std::string& name) { return std::ranges::count(option_table(), name, section_of) > 0; }

/// The option, or (for a name without a dot) the option or section, that `key` probably means.
std::string known_key_like(const std::string& key) {
  std::vector<std::string> known;
  if (key.find('.') == key.npos) std::ranges::transform(option_table(), std::back_inserter(known), section_of);
  std::ranges::transform(option_table(), std::back_inserter(known), &Option::key);
  return nearest(key, known);
}

/// `where` opens the message: "file:line" or a flag.
void set_option(RunOptions& options, const Override& value, const std::string& where, const fs::path& folder) {
  const Option* option = find_option(value.key);
  const auto section = std::ranges::find(option_table(), value.key, section_of);
  if (section != option_table().end())
    throw ConfigError("{}: {} is a section: expected one of its keys, such as {}", where, value.key, section->key);
  if (option == nullptr)
    throw ConfigError("{}: unknown key {}; did you mean {}?", where, quoted(value.key), known_key_like(value.key));
  if (!option->parse(options, value.text, folder))
    throw ConfigError("{}: {}: expected {}, found {}", where, value.key, option->expected, quoted(value.text));
}

}  // namespace

Override parse_override(const std::string& assignment) {
  const std::size_t equals = assignment.find('=');
  if (equals == assignment.npos) throw ConfigError("--set: expected key=value, found {}", quoted(assignment));
  return {"--set", assignment.substr(0, equals), assignment.substr(equals + 1)};
}

std::optional<fs::path> find_config(FileSystem& files, const ConfigSources& sources) {
  const std::pair<const fs::path&, const char*> named[] = {{sources.flag, "--config"},
                                                           {sources.environment, "$TADAPT_CONFIG"}};
  for (const auto& [path, who] : named) {
    if (path.empty()) continue;
    const fs::path file = sources.current_directory / path;
    if (!files.exists(file))
      throw MissingInputError("{}: there is no configuration file (named by {})", file.string(), who);
    return file;
  }
  const fs::path here = sources.current_directory / "tadapt.yaml";
  return files.exists(here) ? std::optional(here) : std::nullopt;
}

fs::path bundled_config(FileSystem& files, const fs::path& executable) {
  for (fs::path folder = executable.parent_path(); folder.has_relative_path(); folder = folder.parent_path()) {
    for (const char* place : {"share/tadapt/configs/toy.yaml", "configs/toy.yaml"}) {
      if (files.exists(folder / place)) return folder / place;
    }
  }
  throw MissingInputError("no configuration was given, and no share/tadapt/configs/toy.yaml lies above {}",
                          executable.string());
}

void apply_yaml(RunOptions& options, const std::string& text, const std::string& label, const fs::path& folder) {
  for (const YamlEntry& entry : read_yaml(text, label)) {
    const std::string where = fmt::format("{}:{}", label, entry.line);
    if (!is_section(entry.key)) {
      set_option(options, {"", entry.key, entry.text}, where, folder);
    } else if (!entry.text.empty()) {
      throw ConfigError("{}: {}: expected keys below it, found {}", where, entry.key, quoted(entry.text));
    }
  }
}

void apply_override(RunOptions& options, const Override& override, const fs::path& current_directory) {
  set_option(options, override, override.flag, current_directory);
}

void validate(const RunOptions& options) {
  const auto leaves = static_cast<std::uint64_t>(options.train.reduction_leaves);
  if (!std::has_single_bit(leaves))
    throw ConfigError("train.reduction_leaves: expected a power of two, found {}", leaves);
  if (options.train.objective == kLocalObjective && options.train.batch_tokens % options.train.reduction_leaves != 0)
    throw ConfigError("train.batch_tokens: expected a multiple of train.reduction_leaves ({}), found {}", leaves,
                      options.train.batch_tokens);
  require_objective_options(options);
  require_servable_order(options);
  for (const Option& option : option_table()) {
    const nlohmann::json value = option.value(options);
    if (value.is_string() && find_invalid_utf8(value.get_ref<const std::string&>()))
      throw ConfigError("{}: expected text in UTF-8, found {}", option.key, quoted(value.get<std::string>()));
  }
}

void require_set(const RunOptions& options, std::initializer_list<const char*> keys) {
  for (const char* key : keys) {
    if (find_option(key)->value(options) == "") throw ConfigError("{} is not set", key);
  }
}

RunOptions load_options(FileSystem& files, const std::optional<fs::path>& file, const std::vector<Override>& overrides,
                        const fs::path& current_directory) {
  RunOptions options;
  if (file) apply_yaml(options, read_text(files, *file, kConfigBytesCap), file->string(), file->parent_path());
  for (const Override& override : overrides) apply_override(options, override, current_directory);
  if (options.dir.empty()) options.dir = current_directory / "runs" / (file ? file->stem() : fs::path("tadapt"));
  if (options.cache.dir.empty()) options.cache.dir = options.dir / "cache";
  validate(options);
  return options;
}

}  // namespace tadapt
