// The one table of all run options: key, meaning, unit, accepted values, and how each is read and shown.
#pragma once

#include <filesystem>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/train/run_options.h"

namespace tadapt {

/// Whether a run directory may be continued with another value of an option.
enum class OnResume { kMustMatch, kMayDiffer };

/// One option. Its default is what a default-constructed RunOptions holds.
struct Option {
  std::string key;          ///< "train.batch_tokens": section and name
  std::string unit;         ///< "tokens", "bytes", …; empty for plain numbers and words
  std::string description;  ///< one line
  std::string expected;     ///< "an integer from 1 to 1024", as error messages and the manual say it
  OnResume on_resume;
  /// Stores the value that `text` says (relative paths start at `folder`); false, storing nothing, if it says none.
  std::function<bool(RunOptions&, const std::string& text, const std::filesystem::path& folder)> parse;
  std::function<nlohmann::json(const RunOptions&)> value;  ///< a number or a string that `parse` reads back
};

/// All options in the order in which they are shown; options of one section stand together.
const std::vector<Option>& option_table();

/// The option with this key, or null.
const Option* find_option(std::string_view key);

/// "train" of "train.batch_tokens".
std::string section_of(const Option& option);

/// What a run's results depend on: {key: value} of every option that must match on resume. No paths, no grid, no log
/// cadence. Keys are sorted, so dump() is canonical and may be hashed.
nlohmann::json config_json(const RunOptions& options);

/// The keys whose values differ between two objects of options, each as "train.steps (was 200, now 400)", or in other
/// `words`; sorted.
std::vector<std::string> differing_keys(const nlohmann::json& before, const nlohmann::json& now,
                                        std::string_view words = "was {}, now {}");

}  // namespace tadapt
