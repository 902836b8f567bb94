// Chunks of the feature site: scripts that hand the page columns of numbers and texts when they are loaded.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/file.h"

namespace tadapt {

/// Numbers of at least 0 as the page reads them, whichever is shorter: an array, or "TYPE:BASE64" of little-endian
/// values, TYPE being the smallest of u8, u16, u32 and f64 that holds them all. DataError for a number below 0 or
/// above 2^53.
nlohmann::ordered_json site_column(std::span<const std::int64_t> values);
/// The same of float32: an array of their shortest decimals, or "f32:BASE64". DataError for what is not finite.
nlohmann::ordered_json site_column(std::span<const float> values);

/// The float as a number whose decimals are the shortest that are this float again.
double shortest_decimal(float value);

/// The text of the script: ASCII only, so that it is read alike whatever encoding is assumed.
std::string chunk_script(std::string_view name, const nlohmann::ordered_json& content);

/// The files of a site that nobody reads yet: they are written one by one, and made durable together, since a thousand
/// waits for the disk would take longer than all the rest.
class SiteFiles {
 public:
  SiteFiles(FileSystem& files, std::filesystem::path site) : files_(files), site_(std::move(site)) {}

  /// SITE/PATH, whose folder must be there.
  void write(const std::filesystem::path& path, std::string_view text);
  /// SITE/data/NAME.js.
  void write_chunk(std::string_view name, const nlohmann::ordered_json& content);
  /// Waits until all that was written here is on disk.
  void sync() const;

 private:
  FileSystem& files_;
  std::filesystem::path site_;
  std::vector<std::filesystem::path> written_;
};

}  // namespace tadapt
