#include "runtime/analysis/site_chunk.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <set>

namespace tadapt {
namespace {

using Json = nlohmann::ordered_json;

static_assert(std::endian::native == std::endian::little, "columns are written as they lie in memory");

std::string base64(std::span<const std::byte> bytes) {
  constexpr std::string_view kLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const std::size_t count = std::min<std::size_t>(3, bytes.size() - i);
    std::uint32_t three = 0;
    for (std::size_t j = 0; j < 3; ++j)
      three = three << 8 | (j < count ? std::to_integer<std::uint32_t>(bytes[i + j]) : 0u);
    for (std::size_t j = 0; j < 4; ++j) text += j <= count ? kLetters[three >> (18 - 6 * j) & 63] : '=';
  }
  return text;
}

template <class Stored, class Value>
std::string as_base64(const char* type, std::span<const Value> values) {
  std::vector<Stored> stored;
  stored.reserve(values.size());
  for (const Value value : values) stored.push_back(static_cast<Stored>(value));
  return fmt::format("{}:{}", type, base64(std::as_bytes(std::span(stored))));
}

/// Of the whole text, with its type and quotes.
std::size_t base64_length(std::size_t values, std::size_t value_bytes) {
  constexpr std::size_t kAround = 6;
  return (values * value_bytes + 2) / 3 * 4 + kAround;
}

std::size_t digits(std::int64_t value) {
  std::size_t count = 1;
  for (; value >= 10; value /= 10) ++count;
  return count;
}

}  // namespace

Json site_column(std::span<const std::int64_t> values) {
  constexpr std::int64_t kMost = std::int64_t{1} << 53;
  std::size_t text = 1;
  std::int64_t largest = 0;
  for (const std::int64_t value : values) {
    if (value < 0 || value > kMost) throw DataError("feature site: expected a number of 0 to 2^53, found {}", value);
    text += digits(value) + 1;
    largest = std::max(largest, value);
  }
  const std::size_t bytes = largest < 1 << 8 ? 1 : largest < 1 << 16 ? 2 : largest >> 32 == 0 ? 4 : 8;
  if (text <= base64_length(values.size(), bytes)) return Json(values);
  if (bytes == 1) return as_base64<std::uint8_t>("u8", values);
  if (bytes == 2) return as_base64<std::uint16_t>("u16", values);
  if (bytes == 4) return as_base64<std::uint32_t>("u32", values);
  return as_base64<double>("f64", values);
}

Json site_column(std::span<const float> values) {
  std::size_t text = 1;
  for (const float value : values) {
    if (!std::isfinite(value)) throw DataError("feature site: expected finite numbers, found {}", value);
    text += fmt::formatted_size("{}", value) + 1;
  }
  if (text > base64_length(values.size(), sizeof(float))) return as_base64<float>("f32", values);
  Json array = Json::array();
  for (const float value : values) array.push_back(shortest_decimal(value));
  return array;
}

double shortest_decimal(float value) { return std::strtod(fmt::format("{}", value).c_str(), nullptr); }

std::string chunk_script(std::string_view name, const Json& content) {
  return fmt::format("tadapt(\"{}\",{});\n", name, content.dump(-1, ' ', true, Json::error_handler_t::replace));
}

void SiteFiles::write(const std::filesystem::path& path, std::string_view text) {
  written_.push_back(site_ / path);
  files_.open(written_.back(), OpenMode::kCreate)->write(0, std::as_bytes(std::span(text)));
}

void SiteFiles::write_chunk(std::string_view name, const Json& content) {
  write(fmt::format("data/{}.js", name), chunk_script(name, content));
}

void SiteFiles::sync() const {
  std::set<std::filesystem::path> folders;
  for (const std::filesystem::path& path : written_) {
    const std::unique_ptr<File> file = files_.open(path, OpenMode::kReadWrite);
    file->sync();
    folders.insert(path.parent_path());
    folders.insert(path.parent_path().parent_path());
  }
  for (const std::filesystem::path& folder : folders) files_.sync_directory(folder);
}

}  // namespace tadapt
