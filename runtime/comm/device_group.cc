// The choice between NCCL and host memory, made alike on all ranks.
#include "runtime/comm/device_group.h"

#include <algorithm>

#include "kernels/core/memory.h"
#include "runtime/comm/mpi_session.h"
#include "runtime/comm/staged_communicator.h"
#if defined(TADAPT_CUDA)
#include "runtime/comm/nccl_communicator.h"
#endif

namespace tadapt {
namespace {

/// Two ranks with the same device, in words; empty when there are none.
std::string shared_device(const std::vector<std::string>& devices) {
  for (std::size_t rank = 0; rank < devices.size(); ++rank) {
    const auto other = std::find(devices.begin(), devices.begin() + static_cast<std::ptrdiff_t>(rank), devices[rank]);
    if (other - devices.begin() < static_cast<std::ptrdiff_t>(rank))
      return fmt::format("ranks {} and {} of the group share {}", other - devices.begin(), rank, devices[rank]);
  }
  return {};
}

}  // namespace

DeviceGroup make_device_group(std::unique_ptr<Communicator> group, Context& context, [[maybe_unused]] SumOrder order,
                              [[maybe_unused]] double timeout_seconds) {
  if (context.device() == Device::kCpu) return {std::move(group), "in host memory, in the fixed order"};
  if (group->size() == 1) return {std::make_unique<StagedCommunicator>(std::move(group), context), "by one rank each"};
  const std::string mine = device_address(context.device()) + " of " + host_name();
  const std::string shared = shared_device(group->all_gather_text(mine, "devices of the group"));
#if defined(TADAPT_CUDA)
  if (shared.empty()) {
    auto communicator = make_nccl_communicator(std::move(group), context, order, timeout_seconds);
    return {std::move(communicator),
            fmt::format("by {}, in {} order", nccl_version(), order == SumOrder::kFast ? "its own" : "the fixed")};
  }
#endif
  return {std::make_unique<StagedCommunicator>(std::move(group), context),
          fmt::format("through host memory, in the fixed order ({})", shared)};
}

}  // namespace tadapt
