// How a group of ranks sums values that lie on their devices.
#pragma once

#include <memory>
#include <string>

#include "kernels/core/context.h"
#include "runtime/comm/communicator.h"

namespace tadapt {

/// In which order sums over several GPUs add: in the library's own, or in the tree of Communicator::start_sum, whose
/// bits do not depend on the library, nor on where the values lie.
enum class SumOrder : std::uint8_t { kFast, kFixed };

struct DeviceGroup {
  std::unique_ptr<Communicator> communicator;  ///< its start_sum takes values in host memory and on the device
  std::string how;                             ///< gradients are summed: "by NCCL 2.28.3, in its own order"
};

/// The group, able to sum values on the context's device; collective over the group, whose ranks all pass the same but
/// for the context, which must outlive the result and stay where it is. On the CPU that is the group itself. On GPUs
/// NCCL where each rank has its own; where ranks share one, which NCCL refuses, staged through host memory, always in
/// the fixed order. See DeviceCommunicator for what the result can do.
/// CommError or WatchdogError (after `timeout_seconds`) when the ranks cannot be connected.
DeviceGroup make_device_group(std::unique_ptr<Communicator> group, Context& context, SumOrder order,
                              double timeout_seconds);

}  // namespace tadapt
