#include "runtime/train/forecast.h"

#include <algorithm>

namespace tadapt {
namespace {

/// "1.2 ms"
std::string readable_seconds(double seconds) {
  if (seconds < 1.0) return fmt::format("{:.3g} ms", 1e3 * seconds);
  if (seconds < 7200.0) return fmt::format("{:.3g} s", seconds);
  return fmt::format("{:.3g} h", seconds / 3600.0);
}

std::vector<std::pair<const char*, std::int64_t>> named(const StepTraffic& traffic) {
  return {{"gradients", traffic.gradients},
          {"weights", traffic.weights},
          {"states", traffic.states},
          {"rows", traffic.rows},
          {"figures", traffic.figures}};
}

}  // namespace

double Forecast::computing() const {
  double sum = 0.0;
  for (const auto& [part, seconds] : parts) sum += seconds;
  return sum;
}

double Forecast::seconds() const { return std::max(computing(), reading); }

std::string Forecast::to_string() const {
  std::string step, sent;
  for (const auto& [part, seconds] : parts)
    if (seconds > 0.0) step += fmt::format("{}{} {}", step.empty() ? "" : ", ", part, readable_seconds(seconds));
  for (const auto& [what, bytes] : named(traffic))
    if (bytes > 0) sent += fmt::format("{}{} {}", sent.empty() ? ": " : ", ", what, readable_bytes(bytes));
  return fmt::format(
      "plan: a rank sends {} a step{}\n"
      "plan: a step takes {}: {}{}\n"
      "plan: {:.4g} tokens/s ({:.4g} while most features are active, as at the start); {} steps in {}{}",
      readable_bytes(traffic.total()), sent, readable_seconds(seconds()), step,
      reading > 0.0 ? fmt::format("; reading {} beside", readable_seconds(reading)) : "", tokens_per_second(),
      tokens / dense_seconds, steps, readable_seconds(static_cast<double>(steps) * seconds()),
      warning.empty() ? "" : "\n" + warning);
}

nlohmann::json Forecast::to_json() const {
  nlohmann::json json{{"tokens_per_second", tokens_per_second()},
                      {"dense_tokens_per_second", tokens / dense_seconds},
                      {"step_seconds", seconds()},
                      {"reading_seconds", reading},
                      {"tokens_per_step", tokens},
                      {"steps", steps},
                      {"layer_balance", layer_balance},
                      {"sent_bytes", traffic.total()},
                      {"warning", warning}};
  for (const auto& [part, part_seconds] : parts) json["seconds"][part] = part_seconds;
  for (const auto& [what, bytes] : named(traffic)) json["sent"][what] = bytes;
  return json;
}

std::string describe_assumptions(const RunOptions& options, const ForecastMachine& machine) {
  return fmt::format(
      "plan: rates of a rank, {}: {}\n"
      "plan: assumed: {} active features per token and layer (plan.active_features), storage read at {}/s per node of "
      "{} "
      "ranks",
      machine.source, describe(machine.rates), options.plan.active_features.value_or(kAssumedActive),
      readable_bytes(static_cast<std::int64_t>(options.plan.storage_bytes_per_second)), options.plan.ranks_per_node);
}

}  // namespace tadapt
