// StagedCommunicator: collectives of device values by way of pinned host memory, for ranks that share a device.
#pragma once

#include <memory>
#include <string>

#include "runtime/comm/device_communicator.h"

namespace tadapt {

/// The values are copied to the host on a line of work of their own, summed there by the group, in its fixed order, and
/// copied back; so the result has the bits of a sum of host values. Of a gather only this rank's part is copied to the
/// host, of a scatter only that comes back. Neither start nor what runs meanwhile waits for the copies: the exchange
/// begins when start, done or wait next finds that the values have come. Pinned memory is kept from one to the next, as
/// much as those under way together need.
class StagedCommunicator : public DeviceCommunicator {
 public:
  /// Collective over the group.
  StagedCommunicator(std::unique_ptr<Communicator> group, Context& context);

 private:
  class Staging;
  class StagedSum;
  std::unique_ptr<PendingExchange> start_on_device(Collective collective, Tensor values, std::string label) override;

  std::shared_ptr<Staging> staging_;
};

}  // namespace tadapt
