// What a fuzz target is: bytes go in, and nothing but tadapt's own errors, in one line, may come out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>

#include "data/file.h"
#include "kernels/core/error.h"

namespace tadapt::fuzz {

/// Runs `read` on the bytes; its errors are answers, a message of several lines is a fault.
template <class Read>
int feed(const std::uint8_t* data, std::size_t size, const Read& read) {
  try {
    read(std::string_view(reinterpret_cast<const char*>(data), size));
  } catch (const Error& error) {
    if (std::string_view(error.what()).find('\n') != std::string_view::npos) std::abort();
    if (error.code() == ExitCode::kInternal) std::abort();
  }
  return 0;
}

/// JSON with the checksum of the rest of itself put right, which no mutation would meet; other bytes as they are.
/// `dump` writes it as the format does.
template <class Dump>
std::string signed_again(std::string_view bytes, const Dump& dump) {
  nlohmann::json whole = nlohmann::json::parse(bytes, nullptr, false);
  if (!whole.is_object()) return std::string(bytes);
  try {
    whole.erase("crc32c");
    const std::string rest = dump(whole);
    whole["crc32c"] = crc32c(std::as_bytes(std::span(rest)));
    return dump(whole);
  } catch (const nlohmann::json::exception&) {  // a string that is no UTF-8
    return std::string(bytes);
  }
}

}  // namespace tadapt::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
