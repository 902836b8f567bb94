// A corpus, line by line, each read as a conversation.
#include "data/corpus.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support/faulty_file_system.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return tadapt::fuzz::feed(data, size, [](std::string_view bytes) {
    tadapt::testing::FaultyFileSystem files;
    tadapt::write_atomically(files, "/corpus.jsonl", bytes);
    tadapt::CorpusReader reader(files, "/corpus.jsonl");
    for (tadapt::CorpusLine line; reader.next(line);) tadapt::parse_conversation(line, reader.path());
  });
}
