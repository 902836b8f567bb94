// Which branches a bridging step runs, from which layers, and with what weight in the loss.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace tadapt {

/// Whose embeddings, attention, norms and head the adapter model has.
enum class Backbone : std::uint8_t { kTarget, kBase };

/// A branch that leaves another model's pass at layer k.
struct Bridge {
  int cutoff = 0;      ///< k
  double share = 0.0;  ///< of the step's cutoffs
};

/// With cutoffs k drawn for a step (each of share 1 / how many), L layers:
///   a2r_k: adapter layers 0..k−1, then target layers k..L−1 with the target's norm and head; not at k = 0
///   r2a_k: target layers 0..k−1, then adapter layers k..L−1; not at k = L
/// On the target's backbone r2a_0 and a2r_L are the adapter model itself: they only weigh its divergence. Otherwise
/// r2a_0 starts from the target's embeddings, and a2r_L reads the adapter model's last state by the target's head.
struct BridgingSchedule {
  BridgingSchedule(int layers, Backbone backbone, std::span<const int> cutoffs);

  std::vector<int> borders;                           ///< 0, the distinct cutoffs between, L
  std::vector<Bridge> a2r;                            ///< branches that run target layers, by cutoff
  std::vector<Bridge> r2a;                            ///< branches that run adapter layers, by cutoff
  double a2r_as_adapter = 0.0, r2a_as_adapter = 0.0;  ///< shares that are the adapter model itself
  double a2r_by_head = 0.0;                           ///< share of a2r_L on the base's backbone

  int intervals() const { return static_cast<int>(borders.size()) - 1; }
  /// Branches of the interval that begins at borders[i].
  int r2a_branches(int interval) const { return begun(r2a, interval); }
  int a2r_branches(int interval) const { return begun(a2r, interval); }

 private:
  int begun(const std::vector<Bridge>& bridges, int interval) const;
};

/// Layers of a branch run in one step, forwards and backwards: L for the target; 2L for the adapter model; 2 (L − k)
/// for each other branch.
std::int64_t layer_passes(const BridgingSchedule& schedule);

/// `count` cutoffs for a step, uniform over first..layers: a function of (seed, step) alone.
std::vector<int> draw_cutoffs(std::uint64_t seed, std::int64_t step, int count, int first, int layers);

}  // namespace tadapt
