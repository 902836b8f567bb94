// SequenceBatches: which sequences of a corpus a bridging step trains on, leaf by leaf.
#pragma once

#include <cstdint>
#include <vector>

#include "data/row_order.h"
#include "data/token_dataset.h"
#include "runtime/loss/bridging_pass.h"

namespace tadapt {

/// Batches of equally many sequences, each batch in equal leaves: a function of (seed, step) alone. Every epoch visits
/// each sequence exactly once, in an order of its own.
class SequenceBatches {
 public:
  /// `corpus` must outlive it. ConfigError when the corpus is empty or `leaves` does not divide `batch_sequences`.
  SequenceBatches(const TokenDataset& corpus, std::uint64_t seed, std::int64_t batch_sequences, std::int64_t leaves);

  std::int64_t sequences() const { return batch_sequences_; }  ///< of a batch
  std::int64_t leaves() const { return leaves_; }
  TokenBatch leaf(std::int64_t step, std::int64_t leaf) const;
  /// Of a whole batch.
  BatchCounts counts(std::int64_t step) const;
  /// Corpus lines of a batch, in its order.
  std::vector<std::int64_t> lines(std::int64_t step) const;
  /// The most tokens that a leaf of any step can have.
  std::int64_t most_leaf_tokens() const;

 private:
  const TokenDataset& corpus_;
  DataOrder order_;
  std::int64_t batch_sequences_, leaves_;
};

}  // namespace tadapt
