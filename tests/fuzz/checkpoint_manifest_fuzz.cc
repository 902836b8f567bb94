// The manifest of a checkpoint, and the records that ranks send each other.
#include "data/checkpoint_manifest.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return tadapt::fuzz::feed(
      data, size, [](std::string_view bytes) { tadapt::CheckpointManifest::from_text(bytes, "fuzz"); });
}
