// How a run ends at a number that is not finite: named once, on every rank.
#pragma once

#include <string>

#include "runtime/comm/communicator.h"
#include "runtime/parameters/parameter_store.h"

namespace tadapt {

/// Samples [begin, end) of a run.
struct SampleRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

/// "layer 3: the gradient of W_enc is not finite at step 12 (samples 0 to 31); nothing of this step was saved"; `where`
/// is "layer 3" or what else the number belongs to.
std::string non_finite_message(const std::string& where, const std::string& what, std::int64_t step,
                               SampleRange samples);

/// Every rank calls it with the same message: one throws NonFiniteError, so that it is said once.
[[noreturn]] void fail_non_finite(const Communicator& world, const std::string& message);

/// Of numbers laid out as the group's parameters are from element `begin` on: which parameter has one that is not
/// finite, or -1.
int first_non_finite_parameter(Context& context, const ParameterGroup& group, const Tensor& numbers,
                               std::int64_t begin);

}  // namespace tadapt
