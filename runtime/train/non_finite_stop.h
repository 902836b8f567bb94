// How a run ends at a number that is not finite: named once, known to every rank.
#pragma once

#include <stdexcept>
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

/// Thrown on every rank alike: run number `run` of those that are trained side by side cannot go on.
class DivergedRun : public std::runtime_error {
 public:
  DivergedRun(int run, const std::string& message) : std::runtime_error(message), run_(run) {}
  int run() const { return run_; }

 private:
  int run_;
};

/// Ends a process that has one run only: one rank throws NonFiniteError, so that it is said once.
[[noreturn]] void fail_non_finite(const Communicator& world, const DivergedRun& found);

/// Of numbers laid out as the group's parameters are from element `begin` on: which parameter has one that is not
/// finite, or -1.
int first_non_finite_parameter(Context& context, const ParameterGroup& group, const Tensor& numbers,
                               std::int64_t begin);

}  // namespace tadapt
