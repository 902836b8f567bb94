// Collectives of device values by NCCL, for ranks that have a GPU each.
#pragma once

#include <memory>

#include "runtime/comm/device_group.h"

namespace tadapt {

/// Connects the ranks of the group by NCCL; collective over it. What it does with device values runs on a line of work
/// of its own. kFast: ncclAllReduce, ncclReduceScatter, ncclAllGather, and one call more for what the last rank's part
/// has more than the others'. kFixed: the steps of the plans in pairwise_plan.h, so the bits of host values; device
/// memory for half of the longest sum is kept.
///
/// Every wait is bounded by the timeout and looks for errors that NCCL reports: CommError names rank, sum and NCCL's
/// reason, WatchdogError the bound. Either way NCCL is told to abort; whatever then is asked of the group fails. Where
/// the abort itself does not return the message says so, and it is left behind.
std::unique_ptr<Communicator> make_nccl_communicator(std::unique_ptr<Communicator> group, Context& context,
                                                     SumOrder order, double timeout_seconds);

/// "NCCL 2.28.3"
std::string nccl_version();

}  // namespace tadapt
