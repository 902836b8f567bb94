// Forecasts: how long a run's steps take by the cost models, and what they send, before anything runs.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "data/token_dataset.h"
#include "runtime/plan/machine_rates.h"
#include "runtime/train/bridging_run.h"
#include "runtime/train/run_shape.h"
#include "runtime/train/step_traffic.h"

namespace tadapt {

/// The machine that a forecast is for.
struct ForecastMachine {
  MachineRates rates;
  std::string source;            ///< of the rates, in words
  Device device = Device::kCpu;  ///< sums of device values run beside the computation; on a CPU they take its time
};

/// Of one step, on the rank that takes longest.
struct Forecast {
  /// What follows one upon the other, in seconds; reading, which runs beside all of it, is apart.
  std::vector<std::pair<std::string, double>> parts = {};
  double reading = 0.0;
  double dense_seconds = 0.0;  ///< of a step while most features are active, as at the start
  double tokens = 0.0;         ///< of a step, a mean where steps differ
  std::int64_t steps = 0;
  StepTraffic traffic = {};    ///< of the rank that sends most
  double layer_balance = 1.0;  ///< the ranks' mean share of the layers over the largest
  std::string warning = {};

  double computing() const;  ///< of a step without reading
  double seconds() const;    ///< of a step
  double tokens_per_second() const { return tokens / seconds(); }
  /// A few lines, without the machine's.
  std::string to_string() const;
  nlohmann::json to_json() const;
};

/// `model_flops_per_row`: by which the models make a row, of a cache or a stream; 0 where that is not known.
Forecast forecast_local(const RunOptions& options, const RunShape& shape, const ProcessGrid& grid,
                        const ForecastMachine& machine, double model_flops_per_row);

/// Cutoffs and lengths are those that the first steps will have.
Forecast forecast_bridging(const RunOptions& options, const BridgingShape& shape, const ProcessGrid& grid,
                           const ForecastMachine& machine, const TokenDataset& corpus);

/// Seconds of a capture and what it is limited by: the models or writing.
struct CaptureForecast {
  double compute = 0.0, writing = 0.0;
  double seconds() const { return compute + writing; }
};
CaptureForecast forecast_capture(const RunOptions& options, const CapturePlan& plan, int ranks,
                                 const MachineRates& rates);

/// Where the rates and assumptions of a forecast come from: one line each.
std::string describe_assumptions(const RunOptions& options, const ForecastMachine& machine);

}  // namespace tadapt
