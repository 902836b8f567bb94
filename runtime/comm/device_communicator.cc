// What holds for device values, whoever carries them.
#include "runtime/comm/device_communicator.h"

#include "runtime/comm/pairwise_plan.h"

namespace tadapt {

std::unique_ptr<PendingExchange> DeviceCommunicator::start(Collective collective, Tensor values, std::string label) {
  if (values.empty() || values.device() == Device::kCpu) return group_->start(collective, values, std::move(label));
  require_shape(values.dtype() == DType::kFloat32 && values.device() == context_.device(),
                "'{}': expected float32 values in {} memory, found {} in {} memory", label, name(context_.device()),
                name(values.dtype()), name(values.device()));
  require_power_of_two(size(), label);
  if (size() == 1 || values.elements() == 0) return std::make_unique<FinishedExchange>();
  return start_on_device(collective, values.reshaped({values.elements()}), std::move(label));
}

}  // namespace tadapt
