// Typed access with messages that name file and key.
#include "data/json_field.h"

#include <fmt/format.h>

#include <cmath>

#include "kernels/core/error.h"

namespace tadapt {

JsonField JsonField::operator[](std::string_view key) const {
  const auto& members = object();
  const auto found = members.find(std::string(key));
  return {found == members.end() ? nullptr : &found->second, file_,
          key_.empty() ? std::string(key) : fmt::format("{}.{}", key_, key)};
}

JsonField JsonField::at(std::size_t index) const {
  return {&array().at(index), file_, fmt::format("{}[{}]", key_, index)};
}

const nlohmann::json::object_t& JsonField::object() const {
  if (!present() || !value_->is_object()) expected("an object");
  return *value_->get_ptr<const nlohmann::json::object_t*>();
}

const nlohmann::json::array_t& JsonField::array() const {
  if (!present() || !value_->is_array()) expected("an array");
  return *value_->get_ptr<const nlohmann::json::array_t*>();
}

const std::string& JsonField::string() const {
  if (!present() || !value_->is_string()) expected("a string");
  return *value_->get_ptr<const std::string*>();
}

std::int64_t JsonField::integer(std::int64_t lowest, std::int64_t highest) const {
  const bool whole = present() && value_->is_number_integer();
  // A number beyond the signed range is kept as unsigned, and get<int64> would wrap it round.
  const bool fits =
      whole && (!value_->is_number_unsigned() || value_->get<std::uint64_t>() <= std::uint64_t{INT64_MAX});
  const std::int64_t number = fits ? value_->get<std::int64_t>() : -1;
  if (!fits || number < lowest || number > highest) {
    expected(lowest == highest ? fmt::format("{}", lowest) : fmt::format("an integer from {} to {}", lowest, highest));
  }
  return number;
}

double JsonField::amount() const {
  const double number = present() && value_->is_number() ? value_->get<double>() : -1.0;
  if (!std::isfinite(number) || number < 0) expected("a finite number of at least 0");
  return number;
}

bool JsonField::boolean() const {
  if (!present() || !value_->is_boolean()) expected("true or false");
  return value_->get<bool>();
}

std::string JsonField::place() const { return key_.empty() ? file_ : fmt::format("{}: {}", file_, key_); }

void JsonField::expected(std::string_view what) const {
  if (!present()) throw DataError("{}: expected {}, found nothing", place(), what);
  if (value_->is_structured()) throw DataError("{}: expected {}, found {}", place(), what, value_->type_name());
  throw DataError("{}: expected {}, found {}", place(), what, value_->dump(-1, ' ', true).substr(0, 100));
}

}  // namespace tadapt
