// A tokenizer.json, and what it makes of a text and back.
#include "data/tokenizer.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support/faulty_file_system.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return tadapt::fuzz::feed(data, size, [](std::string_view bytes) {
    tadapt::testing::FaultyFileSystem files;
    tadapt::write_atomically(files, "/tokenizer.json", bytes);
    tadapt::write_atomically(files, "/tokenizer_config.json", "{}");
    const tadapt::Tokenizer tokenizer = tadapt::Tokenizer::load(files, "/");
    const auto ids = tokenizer.encode("a b, 12 \xc3\xa9<|x|>");
    tokenizer.decode(ids);
  });
}
