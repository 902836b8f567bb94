// A value inside a foreign JSON file together with its place, so that every complaint names file and key.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>

namespace tadapt {

/// Refers to a parsed document, which must outlive it. A missing key and `null` are the same: absent. Every DataError
/// begins with the place, as in `dir/tokenizer.json: model.merges`.
class JsonField {
 public:
  /// The document itself; `file` begins every message.
  JsonField(const nlohmann::json& document, std::string file) : value_(&document), file_(std::move(file)) {}

  bool present() const { return value_ != nullptr && !value_->is_null(); }
  bool is_object() const { return present() && value_->is_object(); }
  bool is_array() const { return present() && value_->is_array(); }
  bool is_string() const { return present() && value_->is_string(); }
  bool is_number() const { return present() && value_->is_number(); }
  /// A member, perhaps absent; DataError unless this is an object.
  JsonField operator[](std::string_view key) const;
  /// An element of array().
  JsonField at(std::size_t index) const;

  /// The value; DataError when it is absent or of another type.
  const nlohmann::json::object_t& object() const;
  const nlohmann::json::array_t& array() const;
  const std::string& string() const;
  std::int64_t integer(std::int64_t lowest, std::int64_t highest) const;
  /// A finite number of at least 0.
  double amount() const;
  bool boolean() const;

  /// The value, or `otherwise` when absent; DataError when it is of another type.
  std::string string_or(std::string_view otherwise) const { return present() ? string() : std::string(otherwise); }
  bool boolean_or(bool otherwise) const { return present() ? boolean() : otherwise; }

  /// "file: key.key[3]".
  std::string place() const;
  /// Throws the DataError "file: key: expected `what`, found …".
  [[noreturn]] void expected(std::string_view what) const;

 private:
  JsonField(const nlohmann::json* value, std::string file, std::string key)
      : value_(value), file_(std::move(file)), key_(std::move(key)) {}

  const nlohmann::json* value_;
  std::string file_, key_;
};

}  // namespace tadapt
