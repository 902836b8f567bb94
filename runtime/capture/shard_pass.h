// ShardPass: the rows of one shard, made batch by batch.
#pragma once

#include <span>
#include <vector>

#include "data/activation_cache_writer.h"
#include "runtime/capture/capture_plan.h"
#include "runtime/model/segments.h"

namespace tadapt {

/// Collects x and Δ of all layers of a shard in host memory. Does not know ranks or files.
class ShardPass {
 public:
  using TokenSource = std::function<std::span<const std::int32_t>(std::int64_t sequence)>;

  /// All must outlive the pass.
  ShardPass(Context& context, const Decoder& pair, const CapturePlan& plan, std::int64_t shard);

  std::int64_t shard() const { return shard_; }
  bool done() const { return next_sequence_ == end_sequence_; }
  /// Runs the next sequences, up to `batch_tokens` of them together (at least one). Returns the rows it kept.
  /// DataError when a sequence is not as long as planned; NonFiniteError.
  std::int64_t run_batch(const TokenSource& tokens, std::int64_t batch_tokens);
  /// Views of the rows, once done.
  ShardRows rows() const;

 private:
  struct Batch {
    TokenBatch tokens;
    std::vector<std::int64_t> sequences;  ///< numbers in the corpus
    std::vector<std::int32_t> kept;       ///< rows of the batch
  };
  Batch next_batch(const TokenSource& tokens, std::int64_t batch_tokens);
  void add_sequence(const TokenSource& tokens, Batch& batch);
  void observe(Batch& batch, const Reading& reading);
  void add_delta(Batch& batch, const Reading& reading, const Tensor& x, const Tensor& delta);
  void require_finite(const Batch& batch, const Tensor& values, int layer, const char* tensor) const;

  Context& context_;
  const Decoder& pair_;
  const CapturePlan& plan_;
  std::int64_t shard_, next_sequence_, end_sequence_;
  std::int64_t filled_ = 0;  ///< rows that earlier batches wrote
  SegmentRunner runner_;
  Workspace base_workspace_;
  std::vector<Buffer> mlp_in_, mlp_delta_;  ///< per layer of the plan, [N, D]
  std::vector<std::int32_t> ids_, positions_;
  std::vector<std::int64_t> sequences_;
};

}  // namespace tadapt
