// Calibration: the rates of this machine, measured on the program's own parts in about a second.
#pragma once

#include <optional>

#include "runtime/comm/communicator.h"
#include "runtime/model/decoder.h"
#include "runtime/plan/machine_rates.h"
#include "runtime/plan/step_timer.h"

namespace tadapt {

/// What of the frozen models is measured.
struct ModelSetting {
  DecoderConfig config;
  DType compute = DType::kBFloat16;
  std::int64_t sequence_tokens = 0;  ///< of a typical sequence
  Directions directions = Directions::kForward;
};

/// The same with every size at most what is measured in a second: rates of larger ones are about the same.
StepSetting measurable(const StepSetting& setting);
ModelSetting measurable(const ModelSetting& setting);

/// Rates of an adapter's leaves and of AdamW.
void measure_adapter(Context& context, const StepSetting& setting, MachineRates& rates);
/// Rates of one layer, and with Directions::kBoth of its backward and of the head with its divergence.
void measure_model(Context& context, const ModelSetting& setting, MachineRates& rates);
/// Rates of sums and messages over all ranks; nothing where there is one. Collective.
void measure_exchange(Communicator& world, MachineRates& rates);

struct CalibrationSetting {
  std::optional<StepSetting> adapter = {};
  std::optional<ModelSetting> model = {};
};
/// The slowest rank's, all measuring at the same time; what is not measured stays as it is in `rates`. Collective.
void calibrate(Context& context, Communicator& world, const CalibrationSetting& setting, MachineRates& rates);

}  // namespace tadapt
