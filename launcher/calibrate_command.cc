// `tadapt-dist calibrate`: where the sparse route stops paying on this machine.
#include <fmt/format.h>

#include "launcher/arguments.h"
#include "launcher/commands.h"
#include "launcher/run_config.h"
#include "launcher/run_session.h"
#include "runtime/adapter/break_even.h"
#include "runtime/model/decoder_config.h"
#include "runtime/plan/step_timer.h"
#include "runtime/train/device_choice.h"

namespace tadapt {
namespace {

constexpr OptionFlag kFlags[] = {
    {"target", "model.target"}, {"features", "adapter.features"}, {"device", "grid.device"}};

}  // namespace

int calibrate_command(const Words& words, const Process& process) {
  CommandSyntax syntax{.usage = "calibrate [--config FILE] [--target DIR] [--features N]",
                       .about =
                           "Measures below how many active features per token the sparse route is the faster one\n"
                           "on this machine, for the adapters and leaves of a configuration. A run never times\n"
                           "itself: it takes the committed figure, or what adapter.sparse_below says."};
  add_option_flags(syntax.flags, kFlags);
  const auto arguments = parse_arguments(syntax, words, process);
  if (!arguments) return static_cast<int>(ExitCode::kDone);
  const RunOptions options = options_of(*arguments, kFlags, WithoutConfig::kToyPair, process);
  require_set(options, {"model.target"});
  const RunSession session(options, process);
  const RunEnvironment& environment = session.environment();

  const StepSetting setting{
      .shape = {load_decoder_config(environment.files, options.model.target).width, options.adapter.features},
      .tokens = options.train.batch_tokens / options.train.reduction_leaves,
      .compute = options.train.compute};
  environment.print(fmt::format("D {}, F {}, leaves of {} tokens, {}, {}, {} threads", setting.shape.model_width,
                                setting.shape.features, setting.tokens, name(setting.compute),
                                arithmetic_of(environment.context), environment.context.threads()));
  const double measured = measure_break_even(environment.context, setting);
  const double committed = break_even(environment.context.device(), setting.shape, setting.compute);
  environment.print(
      fmt::format("break-even: {:.0f} active features per token, {:.3g} of F; the committed figure is {:.0f}", measured,
                  measured / static_cast<double>(setting.shape.features), committed));
  environment.print(fmt::format("adapter.sparse_below: {:.0f}", measured));
  return static_cast<int>(ExitCode::kDone);
}

}  // namespace tadapt
