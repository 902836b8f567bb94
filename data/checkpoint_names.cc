// Names of checkpoint folders, to and from text.
#include "data/checkpoint_names.h"

#include <fmt/format.h>

#include <charconv>

namespace tadapt {

std::string CheckpointName::to_string() const {
  const std::string name = fmt::format("step-{:09d}", step);
  return edition == 1 ? name : fmt::format("{}.{}", name, edition);
}

std::optional<CheckpointName> CheckpointName::parse(std::string_view name) {
  constexpr std::string_view kPrefix = "step-";
  if (!name.starts_with(kPrefix)) return std::nullopt;
  const char* end = name.data() + name.size();
  CheckpointName parsed;
  const char* next = std::from_chars(name.data() + kPrefix.size(), end, parsed.step).ptr;
  if (next != end && *next == '.') std::from_chars(next + 1, end, parsed.edition);
  // Only what to_string would have written: no sign, no other number of zeros, nothing behind.
  if (parsed.step < 0 || parsed.edition < 1 || parsed.to_string() != name) return std::nullopt;
  return parsed;
}

bool is_temporary_checkpoint(std::string_view name) { return name.starts_with("step-") && name.ends_with(".tmp"); }

}  // namespace tadapt
