#include "runtime/train/non_finite_stop.h"

#include <algorithm>

#include "kernels/optim.h"
#include "runtime/comm/peer_failure.h"

namespace tadapt {

std::string non_finite_message(const std::string& where, const std::string& what, std::int64_t step,
                               SampleRange samples) {
  return fmt::format("{}: {} is not finite at step {} (samples {} to {}); nothing of this step was saved", where, what,
                     step, samples.begin, samples.end - 1);
}

void fail_non_finite(const Communicator& world, const DivergedRun& found) {
  if (world.rank() == 0) throw NonFiniteError("{}", found.what());
  throw PeerFailure(ExitCode::kNonFinite, found.what());
}

int first_non_finite_parameter(Context& context, const ParameterGroup& group, const Tensor& numbers,
                               std::int64_t begin) {
  if (numbers.elements() == 0) return -1;
  const std::int64_t at = first_non_finite(context, numbers);
  if (at < 0) return -1;
  return static_cast<int>(std::ranges::upper_bound(group.parameters, begin + at, {}, &ParameterGroup::Span::offset) -
                          group.parameters.begin()) -
         1;
}

}  // namespace tadapt
