// A YAML file of sections and plain values as a flat list of entries; everything else YAML can say is refused.
#pragma once

#include <string>
#include <vector>

namespace tadapt {

/// One `name: value`.
struct YamlEntry {
  std::string key;   ///< "section.name"; "name" where no section holds it
  std::string text;  ///< the value as written, without quotes
  int line = 0;      ///< of the key, counted from 1
};

/// Reads the shape
///     section:
///       name: value
/// A section without keys is an entry with empty text. Refused with ConfigError naming `label` and line: anchors and
/// aliases, tags, lists, deeper nesting, keys without a value or given twice, a second document, and text that is no
/// YAML.
std::vector<YamlEntry> read_yaml(const std::string& text, const std::string& label);

}  // namespace tadapt
