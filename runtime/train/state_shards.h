// How the ranks of a data-parallel group share optimiser state: who has which part, and how it becomes whole again.
#pragma once

#include <vector>

#include "runtime/comm/communicator.h"
#include "runtime/optim/adamw_state.h"
#include "runtime/train/run_options.h"

namespace tadapt {

/// This rank's part of each group of the store, for AdamWState: as Communicator::part has it; none where every rank
/// has everything.
std::vector<ParameterPart> state_parts(ShardState shard, const ParameterStore& store, const Communicator& group);

/// Every rank gets all square sums of a trainee, of which each has measured those of its part. Collective over the
/// group.
void join_square_sums(Context& context, Communicator& group, const AdamWState& optimiser, std::size_t index);

/// Whether numbers on the host are looked at where they are, or copied so that they may change meanwhile.
enum class Hold : std::uint8_t { kInPlace, kCopy };

/// A trainee's moments on the host, whole. Where the state is sharded, making it is collective over the group.
class WholeMoments {
 public:
  WholeMoments(Context& context, Communicator& group, const AdamWState& optimiser, std::size_t index, Hold hold);
  const Tensor& first() const { return first_.tensor; }
  const Tensor& second() const { return second_.tensor; }

 private:
  struct Moment {
    Buffer memory;  ///< unless the optimiser's own serves
    Tensor tensor;
  };
  Moment first_, second_;
};

}  // namespace tadapt
