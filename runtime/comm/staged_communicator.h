// StagedCommunicator: sums of device values by way of pinned host memory, for ranks that share a device.
#pragma once

#include <memory>
#include <string>

#include "runtime/comm/device_communicator.h"

namespace tadapt {

/// The values are copied to the host on a line of work of their own, summed there by the group, in its fixed order, and
/// copied back; so the result has the bits of a sum of host values. Neither start_sum nor what runs meanwhile waits for
/// the copies: the exchange begins when start_sum, done or wait next finds that the values have come. Pinned memory is
/// kept from sum to sum, as much as sums under way together need.
class StagedCommunicator : public DeviceCommunicator {
 public:
  /// Collective over the group.
  StagedCommunicator(std::unique_ptr<Communicator> group, Context& context);

 private:
  class Staging;
  class StagedSum;
  std::unique_ptr<PendingSum> start_device_sum(Tensor values, std::string label) override;

  std::shared_ptr<Staging> staging_;
};

}  // namespace tadapt
