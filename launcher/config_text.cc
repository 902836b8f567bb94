// The two texts made from the table of options: a commented configuration and the manual.
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>

#include "launcher/run_config.h"
#include "runtime/train/option_table.h"

namespace tadapt {
namespace {

/// JSON is YAML; plain words go without quotes.
std::string yaml_value(const nlohmann::json& value) {
  if (value.is_string()) {
    const auto& word = value.get_ref<const std::string&>();
    const auto is_plain = [](unsigned char letter) { return std::islower(letter) || std::isdigit(letter); };
    const bool plain = !word.empty() && std::islower(static_cast<unsigned char>(word[0])) && word != "null" &&
                       std::ranges::all_of(word, is_plain);
    if (plain) return word;
  }
  return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

/// "tokens: an integer of at least 1", whichever parts there are.
std::string unit_and_expected(const Option& option) {
  return option.unit.empty() ? option.expected : option.unit + ": " + option.expected;
}

}  // namespace

std::string print_config(const RunOptions& options) {
  std::string text;
  std::string section;
  for (const Option& option : option_table()) {
    if (section != section_of(option)) {
      text += fmt::format("{}{}:\n", section.empty() ? "" : "\n", section_of(option));
      section = section_of(option);
    }
    text += fmt::format("  # {} [{}]\n", option.description, unit_and_expected(option));
    text += fmt::format("  {}: {}\n", option.key.substr(section.size() + 1), yaml_value(option.value(options)));
  }
  return text;
}

std::string options_manual() {
  std::string text =
      "# Configuration\n\n"
      "Made from the table of options in `runtime/train/option_table.cc` by `tadapt-dist --print-manual`; a test keeps "
      "the two equal.\n\n"
      "A configuration is a YAML file of sections with one value per key; it is looked for in `--config FILE`, "
      "`$TADAPT_CONFIG` and `./tadapt.yaml`, in this order. With none, the bundled toy pair is trained. "
      "`--set section.key=value` changes one option. An unknown key, a key given twice or a value out of range is an "
      "error with exit code 78. Relative paths start at the folder of the file that holds them, those of `--set` and "
      "of "
      "other flags at the current folder. `--print-config` prints the options in effect as such a file.\n\n"
      "A run directory is only continued with the same options; those marked *free* may change.\n";
  const RunOptions defaults;
  std::string section;
  for (const Option& option : option_table()) {
    if (section != section_of(option)) {
      section = section_of(option);
      text += fmt::format("\n## {}\n\n| key | default | value | meaning |\n|---|---|---|---|\n", section);
    }
    text += fmt::format("| `{}` | `{}` | {}{} | {} |\n", option.key, yaml_value(option.value(defaults)),
                        unit_and_expected(option), option.on_resume == OnResume::kMayDiffer ? "; *free*" : "",
                        option.description);
  }
  return text;
}

}  // namespace tadapt
