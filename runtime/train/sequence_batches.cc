#include "runtime/train/sequence_batches.h"

#include <algorithm>
#include <functional>

#include "kernels/core/error.h"

namespace tadapt {

SequenceBatches::SequenceBatches(const TokenDataset& corpus, std::uint64_t seed, std::int64_t batch_sequences,
                                 std::int64_t leaves)
    : corpus_(corpus),
      order_(DataOrder::global(std::max<std::int64_t>(1, corpus.size()), seed)),
      batch_sequences_(batch_sequences),
      leaves_(leaves) {
  if (corpus.size() == 0) throw ConfigError("corpus.train: no sequence to train on");
  if (batch_sequences % leaves != 0)
    throw ConfigError("train.batch_sequences: {} sequences in {} leaves", batch_sequences, leaves);
}

TokenBatch SequenceBatches::leaf(std::int64_t step, std::int64_t leaf) const {
  const std::int64_t each = batch_sequences_ / leaves_, begin = step * batch_sequences_ + leaf * each;
  TokenBatch batch;
  for (const std::int64_t sequence : order_.rows_of(begin, begin + each)) batch.append(corpus_.sequence(sequence).ids);
  return batch;
}

BatchCounts SequenceBatches::counts(std::int64_t step) const {
  BatchCounts counts{.sequences = batch_sequences_};
  for (const std::int64_t sequence : order_.rows_of(step * batch_sequences_, (step + 1) * batch_sequences_)) {
    const auto tokens = static_cast<std::int64_t>(corpus_.sequence(sequence).ids.size());
    counts.tokens += tokens;
    counts.labels += tokens - 1;
  }
  return counts;
}

std::vector<std::int64_t> SequenceBatches::lines(std::int64_t step) const {
  std::vector<std::int64_t> lines;
  for (const std::int64_t sequence : order_.rows_of(step * batch_sequences_, (step + 1) * batch_sequences_))
    lines.push_back(corpus_.sequence(sequence).line);
  return lines;
}

std::int64_t SequenceBatches::most_leaf_tokens() const {
  std::vector<std::int64_t> lengths;
  for (std::int64_t i = 0; i < corpus_.size(); ++i)
    lengths.push_back(static_cast<std::int64_t>(corpus_.sequence(i).ids.size()));
  std::ranges::sort(lengths, std::greater());
  // A leaf may reach over the end of an epoch and meet a sequence in both.
  const std::int64_t each = batch_sequences_ / leaves_, epochs = each / corpus_.size() + 2;
  std::int64_t tokens = 0, left = each;
  for (const std::int64_t length : lengths) {
    const std::int64_t times = std::min(left, epochs);
    tokens += times * length;
    left -= times;
  }
  return tokens;
}

}  // namespace tadapt
