// The manifest of an activation cache, and a shard's listing.
#include "data/activation_cache.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return tadapt::fuzz::feed(data, size, [](std::string_view bytes) {
    const std::string text =
        tadapt::fuzz::signed_again(bytes, [](const nlohmann::json& value) { return value.dump(); });
    try {
      tadapt::to_json(tadapt::parse_manifest(text, "fuzz"));
    } catch (const tadapt::DataError&) {
      tadapt::to_json(tadapt::parse_listing(text, "fuzz"));
    }
  });
}
