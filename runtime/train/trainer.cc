#include "runtime/train/trainer.h"

#include <chrono>
#include <tuple>

#include "runtime/train/agreement.h"
#include "runtime/train/non_finite_stop.h"

namespace tadapt {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

TrainingOutcome Trainer::run(std::int64_t first_step) {
  const std::int64_t samples = parts_.step.samples_per_step();
  ProgressReport progress("train", parts_.step.sample_unit(), total_steps_ * samples, first_step * samples,
                          parts_.options.log.every_seconds, parts_.environment.print);
  for (std::size_t i = 0; i < parts_.state.trainees.size(); ++i)
    parts_.state.trainees[i].adapter->prepare(parts_.environment.context, parts_.state.store.master_views(i));
  TrainingOutcome outcome;
  outcome.step = first_step;
  while (outcome.step < total_steps_ && !stop_) {
    const std::int64_t step = outcome.step + 1;
    try {
      advance(step, outcome, progress);
    } catch (const Error& error) {
      if (parts_.log != nullptr && error.code() == ExitCode::kNonFinite) parts_.log->not_finite(step, error.what());
      throw;
    }
  }
  outcome.finished = outcome.step == total_steps_;
  return outcome;
}

void Trainer::advance(std::int64_t step, TrainingOutcome& outcome, ProgressReport& progress) {
  parts_.environment.heartbeat(fmt::format("step {}", step));
  const TrainingStep::Outcome done = parts_.step.run(step - 1);
  stop_ = done.stop;
  tokens_ += done.metrics.tokens;
  outcome.step = step;
  if (parts_.log != nullptr) log_step(done.metrics, progress);
  const bool last = step == total_steps_;
  // Also before a stop: the resumed run starts behind this step.
  if (last || due(step, parts_.options.train.evaluate_every_steps)) evaluate(step);
  if (stop_ || last || due(step, parts_.options.checkpoint.every_steps)) {
    outcome.checkpoint = save(step);
    if (parts_.log != nullptr) log_timing(step, progress);
  }
}

/// A finite gradient does not make a finite update.
void Trainer::require_finite_state(std::int64_t step) {
  TrainingState& state = parts_.state;
  const std::int64_t samples = parts_.step.samples_per_step();
  agree(parts_.environment.world, [&] {
    for (std::size_t i = 0; i < state.trainees.size(); ++i) {
      const ParameterGroup& group = state.store.group(i);
      const std::int64_t begin = state.optimiser.part(i).begin;
      const std::tuple<const char*, Tensor, std::int64_t> numbers[] = {
          {"", state.store.master(i), 0},
          {"AdamW's first moment of ", state.optimiser.first_moment(i), begin},
          {"AdamW's second moment of ", state.optimiser.second_moment(i), begin}};
      for (const auto& [prefix, tensor, first_element] : numbers) {
        const int bad = first_non_finite_parameter(parts_.environment.context, group, tensor, first_element);
        if (bad < 0) continue;
        const std::string where = fmt::format("layer {}", state.trainees[i].layer);
        const std::string what = prefix + group.parameters[static_cast<std::size_t>(bad)].name;
        throw NonFiniteError("{}", non_finite_message(where, what, step, {(step - 1) * samples, step * samples}));
      }
    }
  });
}

void Trainer::evaluate(std::int64_t step) {
  const HeldOutFigures figures = parts_.step.evaluate(step);
  if (parts_.log == nullptr || figures.empty()) return;
  parts_.log->held_out(step, figures);
  parts_.environment.print(fmt::format("step {}: held-out {}", step, figures.summary()));
}

std::string Trainer::save(std::int64_t step) {
  const auto start = std::chrono::steady_clock::now();
  parts_.environment.heartbeat(fmt::format("checkpoint of step {}", step));
  require_finite_state(step);
  try {
    const std::string path = parts_.checkpointer.save(step, parts_.state);
    failed_saves_ = 0;
    checkpoint_seconds_ += seconds_since(start);
    return path;
  } catch (const Error& error) {
    // A save that ends the run must succeed; a periodic one may fail a few times, loudly.
    const bool final_save = stop_ || step == total_steps_;
    if (final_save || error.code() != ExitCode::kCannotWrite ||
        ++failed_saves_ > parts_.options.checkpoint.failures_allowed)
      throw;
    if (parts_.environment.world.rank() == 0)
      parts_.environment.print(fmt::format("WARNING: checkpoint of step {} failed ({} of {} allowed in a row): {}",
                                           step, failed_saves_, parts_.options.checkpoint.failures_allowed,
                                           error.what()));
    return {};
  }
}

void Trainer::log_step(const StepMetrics& metrics, ProgressReport& progress) {
  if (due(metrics.step, parts_.options.log.metrics_every_steps) || metrics.step == total_steps_)
    parts_.log->step(metrics);
  progress.update(metrics.step * parts_.step.samples_per_step(),
                  [&] { return fmt::format("step {}, {}", metrics.step, metrics.summary()); });
}

void Trainer::log_timing(std::int64_t step, const ProgressReport& progress) {
  parts_.log->timing({.step = step,
                      .seconds = progress.seconds(),
                      .tokens_per_second = static_cast<double>(tokens_) / progress.seconds(),
                      .data_stall_seconds = parts_.step.data_stall_seconds(),
                      .checkpoint_seconds = checkpoint_seconds_,
                      .ranks = parts_.environment.world.size()});
}

}  // namespace tadapt
