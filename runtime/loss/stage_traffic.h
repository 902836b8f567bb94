// What a rank hands to its neighbours for one leaf of the bridging objective.
#pragma once

#include "runtime/loss/bridging_objective.h"

namespace tadapt {

/// Residual states, cotangents among them, each [T, D] float32, that the rank of `part` sends while a leaf of such
/// cutoffs goes through BridgingLeaf's phases: the target's state, those of the adapter model and the bridges, and back
/// the cotangents; where two ranks share the branches, also the target's states of all layers.
std::int64_t states_sent(const BridgingSchedule& schedule, const BridgingPart& part);

}  // namespace tadapt
