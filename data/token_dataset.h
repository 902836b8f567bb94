// A corpus as token ids, in memory.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "data/chat_format.h"
#include "data/file.h"
#include "data/tokenizer.h"

namespace tadapt {

struct TokenDatasetOptions {
  ChatFormat format = ChatFormat::kDeepseek;
  std::int64_t max_tokens = 10000;  ///< per sequence; longer ones are cut off
  int threads = 1;                  ///< that tokenize; the result does not depend on it
};

/// One conversation.
struct TokenSequence {
  std::span<const std::int32_t> ids;  ///< never empty
  std::int64_t response_start = 0;    ///< index of the first token of the (last) response; ids.size() when cut off
  std::int32_t domain = 0;            ///< index into TokenDataset::domains()
  std::int64_t line = 0;              ///< of the corpus file, counted from 1
};

/// All conversations of a corpus in file order: 4 bytes per token. Immutable.
class TokenDataset {
 public:
  /// Reads and tokenizes `corpus`. The errors of CorpusReader, parse_conversation and Tokenizer::encode, each naming
  /// file and line (the first bad line, whatever the number of threads); ConfigError when max_tokens or threads is
  /// below 1 or the tokenizer lacks a token of the format.
  static TokenDataset build(FileSystem& files, const std::filesystem::path& corpus, const Tokenizer& tokenizer,
                            const TokenDatasetOptions& options);

  std::int64_t size() const { return static_cast<std::int64_t>(sequences_.size()); }
  std::int64_t total_tokens() const { return static_cast<std::int64_t>(ids_.size()); }
  /// A view into this dataset; ShapeError when there is no such sequence.
  TokenSequence sequence(std::int64_t index) const&;
  TokenSequence sequence(std::int64_t index) && = delete;
  /// Distinct domains in order of first appearance; "" is that of lines without one.
  const std::vector<std::string>& domains() const { return domains_; }
  /// xxh3 of all ids and of where sequences begin.
  std::uint64_t fingerprint() const;

 private:
  struct Entry {
    std::int64_t begin, response_start, line;
    std::int32_t domain;
  };

  std::vector<std::int32_t> ids_;
  std::vector<Entry> sequences_;
  std::vector<std::string> domains_;
};

}  // namespace tadapt
