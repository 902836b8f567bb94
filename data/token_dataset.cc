// Reads batches of lines, tokenizes them on several threads, and appends them in file order.
#include "data/token_dataset.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <thread>
#include <unordered_map>
#include <utility>

#include "data/corpus.h"
#include "kernels/core/error.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace tadapt {
namespace {

/// Text held before it is tokenized.
constexpr std::size_t kBatchBytes = 32 << 20;

struct Encoded {
  std::vector<std::int32_t> ids;
  std::int64_t response_start = 0;
  std::string domain;
  std::exception_ptr failure;
};

std::vector<CorpusLine> read_batch(CorpusReader& reader) {
  std::vector<CorpusLine> batch;
  CorpusLine line;
  for (std::size_t bytes = 0; bytes < kBatchBytes && reader.next(line); bytes += batch.back().text.size()) {
    batch.push_back(std::move(line));
  }
  return batch;
}

Encoded encode_line(const CorpusLine& line, const std::filesystem::path& path, const ChatRenderer& renderer,
                    TokenEncoder& encoder) {
  Encoded encoded;
  Conversation conversation = parse_conversation(line, path);
  encoded.domain = std::move(conversation.domain);
  try {
    const ChatText chat = renderer.render(conversation.turns);
    encoded.response_start = static_cast<std::int64_t>(encoder.encode(chat.text, chat.response_begin, encoded.ids));
  } catch (const DataError& error) {
    throw DataError("{}: line {}: {}", path.string(), line.number, error.what());
  }
  return encoded;
}

std::vector<Encoded> encode_batch(const std::vector<CorpusLine>& batch, const std::filesystem::path& path,
                                  const ChatRenderer& renderer, const Tokenizer& tokenizer, int threads) {
  std::vector<Encoded> encoded(batch.size());
  std::atomic<std::size_t> next = 0;
  const auto work = [&] {
    TokenEncoder encoder(tokenizer);
    for (std::size_t i = next++; i < batch.size(); i = next++) {
      try {
        encoded[i] = encode_line(batch[i], path, renderer, encoder);
      } catch (...) {
        encoded[i].failure = std::current_exception();
      }
    }
  };
  std::vector<std::jthread> helpers;
  for (int i = 1; i < threads; ++i) helpers.emplace_back(work);
  work();
  helpers.clear();
  return encoded;
}

}  // namespace

TokenDataset TokenDataset::build(FileSystem& files, const std::filesystem::path& corpus, const Tokenizer& tokenizer,
                                 const TokenDatasetOptions& options) {
  if (options.max_tokens < 1) throw ConfigError("a sequence of {} tokens, at least 1 is needed", options.max_tokens);
  if (options.threads < 1) throw ConfigError("{} threads to tokenize, at least 1 is needed", options.threads);
  const ChatRenderer renderer(options.format, tokenizer);
  CorpusReader reader(files, corpus);
  TokenDataset dataset;
  std::unordered_map<std::string, std::int32_t> domain_ids;
  for (auto batch = read_batch(reader); !batch.empty(); batch = read_batch(reader)) {
    std::vector<Encoded> encoded = encode_batch(batch, corpus, renderer, tokenizer, options.threads);
    for (std::size_t i = 0; i < batch.size(); ++i) {
      if (encoded[i].failure) std::rethrow_exception(encoded[i].failure);
      const auto length = std::min(static_cast<std::int64_t>(encoded[i].ids.size()), options.max_tokens);
      const auto domain = domain_ids.try_emplace(encoded[i].domain, static_cast<std::int32_t>(domain_ids.size()));
      if (domain.second) dataset.domains_.push_back(encoded[i].domain);
      dataset.sequences_.push_back(
          {dataset.total_tokens(), std::min(length, encoded[i].response_start), batch[i].number, domain.first->second});
      dataset.ids_.insert(dataset.ids_.end(), encoded[i].ids.begin(), encoded[i].ids.begin() + length);
    }
    // One allocation for the rest of the file instead of a growing one that would hold the ids twice.
    const double expected = static_cast<double>(dataset.ids_.size()) * static_cast<double>(reader.bytes()) /
                            static_cast<double>(reader.bytes_read());
    if (reader.bytes_read() < reader.bytes()) dataset.ids_.reserve(static_cast<std::size_t>(expected * 1.1));
  }
  return dataset;
}

TokenSequence TokenDataset::sequence(std::int64_t index) const& {
  require_shape(index >= 0 && index < size(), "sequence {} of a dataset of {}", index, size());
  const Entry& entry = sequences_[static_cast<std::size_t>(index)];
  const std::int64_t end = index + 1 < size() ? sequences_[static_cast<std::size_t>(index) + 1].begin : total_tokens();
  const auto ids =
      std::span(ids_).subspan(static_cast<std::size_t>(entry.begin), static_cast<std::size_t>(end - entry.begin));
  return {ids, entry.response_start, entry.domain, entry.line};
}

std::uint64_t TokenDataset::fingerprint() const {
  std::vector<std::int64_t> begins;
  for (const Entry& entry : sequences_) begins.push_back(entry.begin);
  const std::uint64_t seed = XXH3_64bits(begins.data(), begins.size() * sizeof(std::int64_t));
  return XXH3_64bits_withSeed(ids_.data(), ids_.size() * sizeof(std::int32_t), seed);
}

}  // namespace tadapt
