// RecordedSegment: layers of a decoder run forwards over several branches at once, remembering what their backward
// needs.
#pragma once

#include <functional>
#include <vector>

#include "runtime/model/arena.h"
#include "runtime/model/branch_tokens.h"
#include "runtime/model/decoder.h"
#include "runtime/model/trained_branch.h"

namespace tadapt {

/// What a segment keeps of each layer: nothing but the states it passes through, also what its backward needs but for
/// the hidden values of MLPs, which are then computed again, or all of it.
enum class Recording : std::uint8_t { kNothing, kAllButHidden, kAll };

/// What the segments of a pass share.
struct PassMemory {
  Workspace& workspace;
  Arena& arena;                ///< of records: a segment made later must go earlier
  std::int64_t& layer_passes;  ///< counted: a layer of a branch, forwards or backwards, is one
};

/// Layers [begin, end) of a decoder, the same for all branches.
struct SegmentPlan {
  const Decoder& decoder;
  const std::vector<MlpSource>& mlps;  ///< by layer of the model
  TrainedBranch* trained;              ///< null: none
  int first_branch = 0;                ///< what the trained one calls the segment's first branch
  int begin = 0;
  int end = 0;
  Recording recording = Recording::kAll;
  Linearisation linearisation = Linearisation::kExact;
};

class RecordedSegment {
 public:
  /// Takes its memory from the arena and gives it back when it goes. Rows of branch b: see BranchTokens.
  RecordedSegment(Context& context, const PassMemory& memory, const SegmentPlan& plan, const BranchTokens& tokens,
                  int branches);
  ~RecordedSegment() { memory_.arena.release(mark_); }
  RecordedSegment(const RecordedSegment&) = delete;
  RecordedSegment& operator=(const RecordedSegment&) = delete;

  /// [branches·T, D] float32: residual state `begin`, to be filled in.
  const Tensor& input() const { return states_.front(); }
  /// Residual state `end`, once forward() is done.
  const Tensor& output() const { return state(plan_.end); }

  int end() const { return plan_.end; }

  using OnState = std::function<void(int layer, const Tensor& state)>;
  /// Calls `on_state` with states `begin` to `end` when they are there; it may be empty.
  void forward(const OnState& on_state);

  /// Branches [first, last).
  struct Branches {
    int first = 0;
    int last = 0;
  };
  /// Called with states `end` to `begin` + 1 (and 0 where that is `begin`) before they are used, and with their
  /// cotangents as far as they are known: what is added counts.
  using OnCotangent = std::function<void(int layer, const Tensor& state, const Tensor& cotangent)>;
  struct Backward {
    Branches branches;  ///< others have no cotangent
    /// Of those, the first so many want the cotangent of their input; the others only their trained branch's.
    int wanted = 0;
    const Tensor& cotangent;      ///< [branches·T, D]: of the output; becomes that of the input
    const OnCotangent& on_state;  ///< states and cotangents of those branches; may be empty
  };
  /// Once, after forward(), unless nothing was recorded.
  void backward(const Backward& work);

  /// What one of so many layers and rows takes from the arena.
  static std::int64_t bytes(const DecoderConfig& config, Recording recording, std::int64_t layers, std::int64_t rows);

 private:
  struct Layer {
    AttentionRecord attention;
    Tensor middle;  ///< state after attention
    MlpRecord mlp;
  };
  Layer take_layer();
  const Tensor& state(int layer) const;
  Tensor rows(const Tensor& tensor, Branches branches) const;
  void forward_layer(int layer);
  void backward_layer(int layer, const Backward& work, int wanted);
  std::int64_t row_count() const { return branches_ * tokens_.tokens(); }
  bool trains(int layer) const { return plan_.trained != nullptr && plan_.trained->has(layer); }

  Context& context_;
  PassMemory memory_;
  SegmentPlan plan_;
  const BranchTokens& tokens_;
  int branches_;
  std::int64_t mark_;
  std::vector<Tensor> states_;  ///< all of them, or two that take turns
  std::vector<Layer> layers_;   ///< all of them, or one
};

}  // namespace tadapt
