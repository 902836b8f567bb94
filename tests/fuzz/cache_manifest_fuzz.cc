// The manifest of an activation cache, and a shard's listing. Both carry a checksum of their own, which no mutation
// would meet: it is put right first.
#include <nlohmann/json.hpp>
#include <span>

#include "data/activation_cache.h"
#include "data/file.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return tadapt::fuzz::feed(data, size, [](std::string_view bytes) {
    std::string text(bytes);
    nlohmann::json whole = nlohmann::json::parse(text, nullptr, false);
    if (whole.is_object()) {
      whole.erase("crc32c");
      const std::string body = whole.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
      whole["crc32c"] = tadapt::crc32c(std::as_bytes(std::span(body)));
      text = whole.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    }
    try {
      tadapt::to_json(tadapt::parse_manifest(text, "fuzz"));
    } catch (const tadapt::DataError&) {
      tadapt::to_json(tadapt::parse_listing(text, "fuzz"));
    }
  });
}
