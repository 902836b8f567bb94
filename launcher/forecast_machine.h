// Whose speed a dry run counts with.
#pragma once

#include "runtime/plan/calibration.h"
#include "runtime/train/forecast.h"
#include "runtime/train/run_environment.h"

namespace tadapt {

/// From plan.machine and plan.rates; measures what the setting names where this machine is asked for. ConfigError when
/// a GPU is not in the table. Collective.
ForecastMachine forecast_machine(const RunOptions& options, const RunEnvironment& environment,
                                 const CalibrationSetting& setting);

}  // namespace tadapt
