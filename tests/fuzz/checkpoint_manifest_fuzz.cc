// The manifest of a checkpoint.
#include "data/checkpoint_manifest.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return tadapt::fuzz::feed(data, size, [](std::string_view bytes) {
    const std::string text =
        tadapt::fuzz::signed_again(bytes, [](const nlohmann::json& value) { return value.dump(1) + "\n"; });
    tadapt::CheckpointManifest::from_text(text, "fuzz").to_text();
  });
}
