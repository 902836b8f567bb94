#include "launcher/forecast_machine.h"

#include <chrono>

#include "kernels/core/memory.h"

namespace tadapt {
namespace {

ForecastMachine measured(const RunEnvironment& environment, const CalibrationSetting& setting) {
  const auto start = std::chrono::steady_clock::now();
  ForecastMachine machine{.rates = {}, .source = {}, .device = environment.context.device()};
  calibrate(environment.context, environment.world, setting, machine.rates);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  machine.source = fmt::format("measured here in {:.1f} s with {} threads", seconds, environment.context.threads());
  return machine;
}

ForecastMachine built_in(std::string_view name) {
  return {.rates = *built_in_rates(name),
          .source = fmt::format("the maker's figures of an {} times assumed efficiencies, not measured", name),
          .device = Device::kCuda};
}

}  // namespace

ForecastMachine forecast_machine(const RunOptions& options, const RunEnvironment& environment,
                                 const CalibrationSetting& setting) {
  const Device device = environment.context.device();
  if (!options.plan.rates.empty())
    return {.rates = read_machine_rates(environment.files, options.plan.rates),
            .source = options.plan.rates.string(),
            .device = device};
  if (built_in_rates(options.plan.machine) != nullptr) return built_in(options.plan.machine);
  if (options.plan.machine == "measured" || device == Device::kCpu) return measured(environment, setting);
  const std::string kind = device_kind(device);
  if (const std::string_view name = built_in_machine_of(kind); !name.empty()) return built_in(name);
  throw ConfigError("plan.machine: there are no figures of {}; measured, or the nearest of {}", kind,
                    built_in_machines());
}

}  // namespace tadapt
