// Chunks of the feature site: scripts that hand the page columns of numbers and texts when they are loaded.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>

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

/// Writes it to SITE/data/NAME.js, whose folder must be there.
void write_chunk(FileSystem& files, const std::filesystem::path& site, std::string_view name,
                 const nlohmann::ordered_json& content);

}  // namespace tadapt
