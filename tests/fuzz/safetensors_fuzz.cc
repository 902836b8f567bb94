// The header of a safetensors file, and the layouts it names.
#include <span>

#include "data/safetensors_header.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return tadapt::fuzz::feed(data, size, [](std::string_view bytes) {
    if (bytes.size() < 8) return;
    const std::uint64_t length =
        tadapt::safetensors_header_bytes(std::as_bytes(std::span(bytes.substr(0, 8))), bytes.size(), "fuzz");
    const auto header = tadapt::parse_safetensors_header(bytes.substr(8, length), bytes.size(), "fuzz");
    for (const auto& [name, entry] : header.tensors) tadapt::layout_of(entry, name, "fuzz");
  });
}
