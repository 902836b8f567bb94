// BridgingLeaf: one leaf's way through the bridging objective, phase by phase, over the layers and branches of this
// rank.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/loss/adapter_tape.h"
#include "runtime/loss/bridging_objective.h"
#include "runtime/loss/bridging_schedule.h"
#include "runtime/loss/head_losses.h"
#include "runtime/loss/residual_nmse.h"
#include "runtime/loss/stage_link.h"
#include "runtime/model/recorded_segment.h"

namespace tadapt {

/// What a leaf is trained on, and where its gradients go.
struct BridgingWork {
  const TokenBatch& batch;  ///< sequences of this leaf
  std::span<const int> cutoffs;
  BatchCounts whole;  ///< of the global batch
  double sparsity;    ///< the weight, as it is at this step
  AdapterTape& adapters;
  struct Gradients {
    std::function<Tensor(std::size_t index)> slot;  ///< as AdapterTape::Leaf has them
    std::function<void(std::size_t index)> filled;
  } gradients;
};

/// What the leaves of a rank share.
struct BridgingMachine {
  Context& context;
  const BridgingModels& models;
  const BridgingWeights& weights;
  BridgingPart part;
  StageLink* link;  ///< null: this rank runs everything
  Recording recording;
  Workspace& workspace;
  HeadLosses& head;
  const std::vector<MlpSource>& target_mlps;
  const std::vector<MlpSource>& adapter_mlps;
  std::int64_t& layer_passes;
};

/// Memory of one leaf at a time.
struct LeafMemory {
  LeafMemory(Device device, int states, OverStates over) : arena(device), nmse(states, over) {}
  Arena arena;
  BranchTokens tokens;
  ResidualNmse nmse;
  Buffer weighted_activations;
};

/// Phases in their order; all ranks of a leaf go through the same ones, and leaf after leaf in each. The rank of the
/// target's branches hands its states to that of the adapter model's, which needs them once a2r has reached its loss:
/// until then the two have run as many layers.
class BridgingLeaf {
 public:
  BridgingLeaf(const BridgingMachine& machine, LeafMemory& memory, const BridgingWork& work);
  ~BridgingLeaf();
  BridgingLeaf(const BridgingLeaf&) = delete;
  BridgingLeaf& operator=(const BridgingLeaf&) = delete;

  /// The target, and the adapter model up to the last cutoff between layers.
  void forward();
  /// a2r from its cutoffs to the last layer, and its loss.
  void forward_a2r();
  /// Back to the cutoffs, where it leaves what it says of the adapter model's states.
  void backward_a2r();
  /// Adapter model and r2a behind the last cutoff, and their losses.
  void forward_rest(const RecordedSegment::OnState& on_state = {});
  /// Adapter model and r2a back to the first layer.
  void backward();
  /// Once all is done. Waits for the device.
  BridgingValue value();

  /// The adapter model's divergence alone, behind forward_rest() of a leaf without gradients.
  double adapter_divergence() const { return adapter_kl_; }
  /// State `layer` of the target, one that this rank's layers pass through.
  const Tensor& target_state(int layer) const { return target_states_[at(layer - layers().begin)]; }

  /// Bytes of the arena for such leaves.
  static std::int64_t bytes(const DecoderConfig& config, const BridgingMemory& memory, const BridgingPart& part);

 private:
  using Segments = std::vector<std::unique_ptr<RecordedSegment>>;
  /// Layers of this rank between two borders of the schedule.
  struct Piece {
    int interval, begin, end;
  };
  struct HeadWeights {
    double kl = 0.0;
    double label = 0.0;
  };

  static std::size_t at(int index) { return static_cast<std::size_t>(index); }
  LayerSpan layers() const { return machine_.part.layers; }
  bool first_stage() const { return layers().begin == 0; }
  bool last_stage() const { return layers().end == schedule_.borders.back(); }
  int last_interval() const { return schedule_.intervals() - 1; }
  int border(int interval) const { return schedule_.borders[at(interval)]; }
  int interval_before(int layer) const;
  bool begins_interval(const Piece& piece) const { return piece.begin == border(piece.interval); }
  /// Branches of this rank in an interval: the adapter model first, then r2a; a2r.
  int first_r2a() const { return machine_.part.runs_adapter() ? 1 : 0; }
  int adapter_branches(int interval) const;
  int a2r_branches(int interval) const { return machine_.part.runs_adapter() ? schedule_.a2r_branches(interval) : 0; }
  Tensor branch(const Tensor& tensor, int index) const { return tensor.rows(index * tokens_, (index + 1) * tokens_); }
  Tensor branches(const Tensor& tensor, int count) const { return tensor.rows(0, count * tokens_); }
  Tensor take(int branches);
  void take_cotangents();
  SegmentPlan plan(AdapterTape* adapters, const Piece& piece, Recording recording) const;
  void send(const Tensor& values, Neighbour to);
  void receive(const Tensor& values, Neighbour from);

  void run_target();
  void share_target();
  void receive_adapter_states();
  void run_adapters(const Piece& piece, const RecordedSegment::OnState& on_state);
  void run_a2r(const Piece& piece);
  HeadBranch head(const Decoder& decoder, const Tensor& residual, const Tensor& towards, HeadWeights weights);
  Tensor row_weights(double weight);
  /// Each branch's Σ over tokens of its divergence.
  std::vector<double> head_losses(std::span<const HeadBranch> heads);
  void adapter_losses();
  void upload(const Tensor& host, const Tensor& there);
  double total(const Tensor& rows);

  BridgingMachine machine_;
  LeafMemory& memory_;
  BridgingWork work_;
  BridgingSchedule schedule_;
  std::int64_t tokens_;
  std::int64_t mark_;
  PassMemory pass_memory_;
  std::vector<Piece> pieces_;
  std::vector<Tensor> target_states_;
  Tensor entering_;                     ///< adapter model and r2a as they reach this rank's first layer
  std::vector<Tensor> a2r_cotangents_;  ///< by cutoff: of the adapter model's state there
  Tensor cotangent_;                    ///< of the adapter model and r2a
  Tensor a2r_cotangent_;                ///< of all a2r
  Tensor weighted_activations_;
  Segments adapter_segments_, a2r_segments_;
  std::vector<double> a2r_kl_, r2a_kl_;
  double adapter_kl_ = 0.0, adapter_kl_by_target_head_ = 0.0, label_ = 0.0;
  bool target_shared_ = false;
};

}  // namespace tadapt
