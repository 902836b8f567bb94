// RowPass: kept rows of sequences, made batch by batch.
#pragma once

#include <span>
#include <vector>

#include "data/activation_cache_writer.h"
#include "runtime/capture/capture_plan.h"
#include "runtime/capture/finite_rows.h"
#include "runtime/capture/row_transfer.h"
#include "runtime/model/segments.h"

namespace tadapt {

/// Collects x and Δ of all layers of one set of rows in host memory, which serves one set after another. Does not know
/// ranks or files.
class RowPass {
 public:
  using TokenSource = std::function<std::span<const std::int32_t>(std::int64_t sequence)>;

  /// Takes memory for sets of so many rows at most. All must outlive the pass.
  RowPass(Context& context, const Decoder& pair, const CapturePlan& plan, std::int64_t most_rows);

  /// Turns to another set; the rows of the one before are lost.
  void begin(std::vector<SequenceRows> parts);
  bool done() const { return next_ == parts_.size(); }
  /// Runs the next sequences, up to `batch_tokens` of them together (at least one). Returns the rows it kept.
  /// DataError when a sequence is not as long as planned; NonFiniteError.
  std::int64_t run_batch(const TokenSource& tokens, std::int64_t batch_tokens);
  /// Views of the rows made so far.
  ShardRows rows() const;

 private:
  /// What a set of rows that must be finite is.
  struct Checked {
    enum What { kInput, kTargetOutput, kDelta };
    int layer;
    What what;
  };
  struct Batch {
    TokenBatch tokens;
    std::vector<std::int64_t> sequences;  ///< numbers in the corpus
    std::vector<std::int32_t> kept;       ///< rows of the batch
    Tensor rows;                          ///< `kept` where the context computes
    Tensor x;                             ///< those rows of the MLP input last read
    std::vector<Checked> checked;         ///< what finite_ was given
  };
  Batch next_batch(const TokenSource& tokens, std::int64_t batch_tokens);
  void add_rows(const TokenSource& tokens, const SequenceRows& part, Batch& batch);
  void observe(Batch& batch, const Reading& reading);
  /// target_out [rows, D] -= base MLP(x)
  void subtract_base(Batch& batch, int layer, const Tensor& target_out);
  Tensor on_device(const Tensor& kept);
  std::int64_t rows_to_check(const Batch& batch) const;
  void check(Batch& batch, int layer, Checked::What what, const Tensor& values);
  /// NonFiniteError naming layer, tensor, position and sequence of the first number checked that is not.
  void require_finite(const Batch& batch) const;

  Context& context_;
  const Decoder& pair_;
  const CapturePlan& plan_;
  std::vector<SequenceRows> parts_;
  std::size_t next_ = 0;
  std::vector<Buffer> mlp_in_, mlp_delta_;  ///< per layer of the plan, [N, D] on the host
  std::vector<std::int32_t> ids_, positions_;
  std::vector<std::int64_t> sequences_;
  SegmentRunner runner_;
  Workspace base_workspace_;
  Buffer kept_;
  FiniteRows finite_;
  RowTransfer transfer_;
};

}  // namespace tadapt
