// The kinds of values an option can have (integer, number, word, text, path): how each is read, checked and shown.
#pragma once

#include <charconv>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "runtime/train/option_table.h"

namespace tadapt::option_kinds {

/// Where an option's value lies: a function from RunOptions& to the value, for const and mutable options alike.
template <class T>
auto field(T RunOptions::* member) {
  return [=](auto& options) -> auto& { return options.*member; };
}
template <class Section, class T>
auto field(Section RunOptions::* section, T Section::* member) {
  return [=](auto& options) -> auto& { return options.*section.*member; };
}
template <class Access>
using ValueOf = std::remove_cvref_t<std::invoke_result_t<Access, RunOptions&>>;

/// Key, unit and description, as every kind takes them.
struct About {
  std::string key;
  std::string unit;
  std::string description;
  OnResume on_resume = OnResume::kMustMatch;
};

/// The whole of `text` as a number of type T: no spaces, no suffix, no infinity.
template <class T>
bool parse_number(const std::string& text, T& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return false;
  if constexpr (std::is_floating_point_v<T>) return std::isfinite(value);
  return true;
}

/// An integer from `lowest` to `highest`.
template <class Access, class T = ValueOf<Access>>
Option integer(About about, Access field, std::type_identity_t<T> lowest,
               std::type_identity_t<T> highest = std::numeric_limits<T>::max()) {
  const std::string bound = highest == std::numeric_limits<T>::max()
                                ? fmt::format("an integer of at least {}", lowest)
                                : fmt::format("an integer from {} to {}", lowest, highest);
  return {about.key,
          about.unit,
          about.description,
          bound,
          about.on_resume,
          [=](RunOptions& options, const std::string& text, const std::filesystem::path&) {
            T value{};
            const bool ok = parse_number(text, value) && value >= lowest && value <= highest;
            if (ok) field(options) = value;
            return ok;
          },
          [=](const RunOptions& options) { return nlohmann::json(field(options)); }};
}

/// Which numbers a number option takes; `text` completes "a float32 number …". They are kept in double, but kernels
/// compute with them in float32: there, too, they must be finite and as the rule says.
struct NumberRule {
  std::string text;
  bool (*allows)(double);

  bool accepts(double value) const {
    const auto narrowed = static_cast<float>(value);
    return allows(value) && std::isfinite(narrowed) && allows(static_cast<double>(narrowed));
  }
};

/// A floating-point number that the rule accepts.
template <class Access>
Option number(About about, Access field, NumberRule rule) {
  return {about.key,
          about.unit,
          about.description,
          "a float32 number " + rule.text,
          about.on_resume,
          [=](RunOptions& options, const std::string& text, const std::filesystem::path&) {
            double value = 0;
            const bool ok = parse_number(text, value) && rule.accepts(value);
            if (ok) field(options) = value;
            return ok;
          },
          [=](const RunOptions& options) { return nlohmann::json(field(options)); }};
}

/// As number, or the word auto, which leaves the field empty.
template <class Access>
Option number_or_auto(About about, Access field, NumberRule rule) {
  return {about.key,
          about.unit,
          about.description,
          "auto or a float32 number " + rule.text,
          about.on_resume,
          [=](RunOptions& options, const std::string& text, const std::filesystem::path&) {
            double value = 0;
            const bool ok = text == "auto" || (parse_number(text, value) && rule.accepts(value));
            if (ok) field(options) = text == "auto" ? std::nullopt : std::optional(value);
            return ok;
          },
          [=](const RunOptions& options) {
            return field(options) ? nlohmann::json(*field(options)) : nlohmann::json("auto");
          }};
}

template <class T>
using Words = std::vector<std::pair<std::string, T>>;

/// One of several words, each standing for a value.
template <class Access>
Option word(About about, Access field, Words<ValueOf<Access>> words) {
  std::string expected = words.size() == 1 ? "" : "one of ";
  for (const auto& [text, value] : words) expected += (&text == &words.front().first ? "" : ", ") + text;
  return {about.key,
          about.unit,
          about.description,
          expected,
          about.on_resume,
          [=](RunOptions& options, const std::string& text, const std::filesystem::path&) {
            for (const auto& [known, value] : words) {
              if (known != text) continue;
              field(options) = value;
              return true;
            }
            return false;
          },
          [=](const RunOptions& options) {
            for (const auto& [known, value] : words) {
              if (value == field(options)) return nlohmann::json(known);
            }
            return nlohmann::json("?");
          }};
}

/// Free text that `accepts` takes.
template <class Access>
Option text(About about, Access field, std::string expected, bool (*accepts)(const std::string&)) {
  return {about.key,
          about.unit,
          about.description,
          std::move(expected),
          about.on_resume,
          [=](RunOptions& options, const std::string& value, const std::filesystem::path&) {
            if (accepts(value)) field(options) = value;
            return accepts(value);
          },
          [=](const RunOptions& options) { return nlohmann::json(field(options)); }};
}

/// A path; never part of what must match on resume, for a run may be moved.
template <class Access>
Option path(About about, Access field) {
  return {about.key,
          about.unit,
          about.description,
          "a path",
          OnResume::kMayDiffer,
          [=](RunOptions& options, const std::string& value, const std::filesystem::path& folder) {
            const bool ok = value.find('\0') == value.npos;
            if (ok) field(options) = value.empty() ? std::filesystem::path() : (folder / value).lexically_normal();
            return ok;
          },
          [=](const RunOptions& options) { return nlohmann::json(field(options).string()); }};
}

}  // namespace tadapt::option_kinds
