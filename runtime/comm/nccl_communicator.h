// Sums of device values by NCCL, for ranks that have a GPU each.
#pragma once

#include <memory>

#include "runtime/comm/device_group.h"

namespace tadapt {

/// Connects the ranks of the group by NCCL; collective over it. The communicator's device sums run on a line of work of
/// their own. kFast: one ncclAllReduce a sum. kFixed: the steps of plan_pairwise_sum, so the bits of a sum of host
/// values; device memory for half of the longest sum is kept.
///
/// Every wait is bounded by the timeout and looks for errors that NCCL reports: CommError names rank, sum and NCCL's
/// reason, WatchdogError the bound. Either way NCCL is told to abort; whatever then is asked of the group fails. Where
/// the abort itself does not return the message says so, and it is left behind.
std::unique_ptr<Communicator> make_nccl_communicator(std::unique_ptr<Communicator> group, Context& context,
                                                     SumOrder order, double timeout_seconds);

/// "NCCL 2.28.3"
std::string nccl_version();

}  // namespace tadapt
