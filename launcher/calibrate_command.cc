// `tadapt-dist calibrate`: where the sparse route stops paying on this machine.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "launcher/arguments.h"
#include "launcher/commands.h"
#include "launcher/run_config.h"
#include "launcher/run_session.h"
#include "runtime/adapter/break_even.h"
#include "runtime/model/decoder_config.h"
#include "runtime/plan/calibration.h"
#include "runtime/plan/step_timer.h"
#include "runtime/train/agreement.h"
#include "runtime/train/device_choice.h"

namespace tadapt {
namespace {

constexpr std::int64_t kTypicalSequence = 512;
constexpr OptionFlag kFlags[] = {
    {"target", "model.target"}, {"features", "adapter.features"}, {"device", "grid.device"}};

ModelSetting model_setting(const RunOptions& options, const DecoderConfig& target) {
  return {.config = target,
          .compute = options.model.compute,
          .sequence_tokens = std::min<std::int64_t>(options.corpus.max_sequence_tokens, kTypicalSequence),
          .directions = Directions::kBoth};
}

void write_rates(const RunEnvironment& environment, const CalibrationSetting& setting,
                 const std::filesystem::path& path) {
  MachineRates rates;
  calibrate(environment.context, environment.world, setting, rates);
  on_rank_zero(environment.world, [&] {
    write_atomically(environment.files, path, to_json(rates).dump(1) + "\n");
    return std::string();
  });
  environment.print(
      fmt::format("{}\n{}: for plan.rates; network_bytes is not measured", describe(rates), path.string()));
}

}  // namespace

int calibrate_command(const Words& words, const Process& process) {
  CommandSyntax syntax{.usage = "calibrate [--config FILE] [--target DIR] [--features N]",
                       .about =
                           "Measures below how many active features per token the sparse route is the faster one\n"
                           "on this machine, for the adapters and leaves of a configuration. A run never times\n"
                           "itself: it takes the committed figure, or what adapter.sparse_below says. With --out\n"
                           "it measures the rates that --dry-run counts with instead, all ranks at a time."};
  add_option_flags(syntax.flags, kFlags);
  syntax.flags.add_options()("out", boost::program_options::value<std::string>()->value_name("FILE"),
                             "measure rates, and write them there for plan.rates");
  const auto arguments = parse_arguments(syntax, words, process);
  if (!arguments) return static_cast<int>(ExitCode::kDone);
  const RunOptions options = options_of(*arguments, kFlags, WithoutConfig::kToyPair, process);
  require_set(options, {"model.target"});
  const RunSession session(options, process);
  const RunEnvironment& environment = session.environment();

  const DecoderConfig target = load_decoder_config(environment.files, options.model.target);
  const StepSetting setting{.shape = {target.width, options.adapter.features},
                            .tokens = options.train.batch_tokens / options.train.reduction_leaves,
                            .compute = options.train.compute};
  environment.print(fmt::format("D {}, F {}, leaves of {} tokens, {}, {}, {} threads", setting.shape.model_width,
                                setting.shape.features, setting.tokens, name(setting.compute),
                                arithmetic_of(environment.context), environment.context.threads()));
  if (arguments->count("out") > 0) {
    write_rates(environment, {.adapter = setting, .model = model_setting(options, target)},
                path_of(*arguments, "out", process));
    return static_cast<int>(ExitCode::kDone);
  }
  const double measured = measure_break_even(environment.context, setting);
  const double committed = break_even(environment.context.device(), setting.shape, setting.compute);
  environment.print(
      fmt::format("break-even: {:.0f} active features per token, {:.3g} of F; the committed figure is {:.0f}", measured,
                  measured / static_cast<double>(setting.shape.features), committed));
  environment.print(fmt::format("adapter.sparse_below: {:.0f}", measured));
  return static_cast<int>(ExitCode::kDone);
}

}  // namespace tadapt
