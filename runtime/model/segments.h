// A run of the model as a small graph of segments: which layers run under which splice, and from which state.
#pragma once

#include <functional>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "runtime/model/splice.h"

namespace tadapt {

/// Layers [begin, end) under one splice. It starts from the tokens' embeddings (then begin is 0) or from the residual
/// state of an earlier segment where that one enters layer `begin` (or has left its last).
struct Segment {
  static constexpr int kTokens = -1;

  Splice splice;
  int begin = 0;
  int end = 0;
  int source = kTokens;
  const CachedBatch* cached = nullptr;  ///< keys and values of its layers are kept, and earlier ones attended to
};

/// The residual state of `segment` entering `layer`; layer = end is its last. State 0 of the tokens is the embeddings,
/// state L what the final norm reads.
struct StateName {
  int segment = 0;
  int layer = 0;
  friend auto operator<=>(const StateName&, const StateName&) = default;
};

/// Where a pass can be read. All values are [T, D] float32.
enum class ReadPoint {
  kEmbeddings,  ///< residual state 0; layer 0
  kMlpIn,       ///< what the layer's MLP reads
  kMlpOut,      ///< what is added to the residual: the MLP's output and the adapter's
  kBlockOut,    ///< residual state layer + 1
};

struct Reading {
  int segment;
  int layer;
  ReadPoint point;
  const Tensor& values;  ///< gone when the observer returns
};

struct RunReads {
  std::vector<StateName> keep;                  ///< states to keep beyond the run
  std::function<void(const Reading&)> observe;  ///< called at every point as the pass gets there; may be empty
};

/// Residual states that outlive a run, each [T, D] float32.
class ResidualStates {
 public:
  /// ShapeError when it was not kept.
  Tensor at(StateName name) const;

 private:
  friend class SegmentRunner;
  std::map<StateName, Buffer> states_;
};

/// Runs segments of one decoder. Keeps a residual state only where a later segment starts or a reader asked for it.
class SegmentRunner {
 public:
  /// Both must outlive the runner.
  SegmentRunner(Context& context, const Decoder& decoder)
      : context_(context), decoder_(decoder), workspace_(context.device()) {}

  /// Runs the segments in order over one batch. ShapeError when the graph is not well formed; DataError for an id
  /// outside the vocabulary.
  ResidualStates run(std::span<const Segment> segments, const TokenBatch& batch, const RunReads& reads);

 private:
  struct Pass;
  void check(std::span<const Segment> segments, const RunReads& reads) const;
  void run_layer(const Pass& pass, int layer);

  Context& context_;
  const Decoder& decoder_;
  Workspace workspace_;
  TokenMemory tokens_;
};

/// Rows of one last residual state [R, D] and the decoder whose norm and head read them.
struct LogitsSource {
  const Decoder* decoder;
  Tensor residual;
};

/// Rows [begin, end) of every source, in the order of the sources.
struct LogitsChunk {
  std::int64_t begin;
  std::int64_t end;
  std::span<const Tensor> final_norms;  ///< [end - begin, D] float32 each
  std::span<const Tensor> logits;       ///< [end - begin, V] float32 each
};

/// Calls `visit` with the logits of all sources, chunk by chunk of as many rows as fit `budget_bytes` (at least one),
/// so that sources can be compared without ever holding [T, V]. All sources have as many rows. A row's logits do not
/// depend on the budget.
void for_each_logits_chunk(Context& context, std::span<const LogitsSource> sources, std::size_t budget_bytes,
                           const std::function<void(const LogitsChunk&)>& visit);

}  // namespace tadapt
