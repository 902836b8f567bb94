// Names of checkpoint folders.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace tadapt {

/// step-000001234, or step-000001234.2 for the second checkpoint of that step, and so on; later ones compare greater.
struct CheckpointName {
  std::int64_t step = 0;
  std::int64_t edition = 1;

  friend auto operator<=>(const CheckpointName&, const CheckpointName&) = default;
  std::string to_string() const;
  /// Nothing for any other name.
  static std::optional<CheckpointName> parse(std::string_view name);
};

/// Whether the folder is of a save that was not finished or of a removal that was not.
bool is_temporary_checkpoint(std::string_view name);

}  // namespace tadapt
