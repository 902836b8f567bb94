// A YAML configuration, from its text to checked options.
#include "launcher/run_config.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return tadapt::fuzz::feed(data, size, [](std::string_view bytes) {
    tadapt::RunOptions options;
    tadapt::apply_yaml(options, std::string(bytes), "fuzz.yaml", "/");
    tadapt::validate(options);
  });
}
