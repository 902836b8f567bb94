#include "runtime/train/trainer.h"

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
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
  if (parts_.options.checkpoint.asynchronous == Asynchronous::kOn) {
    std::vector<Checkpointer*> runs;
    for (const RunOutput& output : parts_.outputs) runs.push_back(&output.checkpointer);
    saves_.emplace(parts_.environment.world, std::move(runs));
  }
  TrainingOutcome outcome;
  outcome.step = first_step;
  if (first_step > 0 && owes_figures(first_step) && !has_figures(first_step)) evaluate(first_step);
  while (outcome.step < total_steps_ && !stop_) {
    const std::int64_t step = outcome.step + 1;
    try {
      advance(step, outcome, progress);
    } catch (const DivergedRun& found) {
      MetricsLog* log = parts_.outputs.at(static_cast<std::size_t>(found.run())).log;
      if (log != nullptr) log->not_finite(step, found.what());
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
  advance_save();
  tokens_ += done.runs.front().tokens;
  outcome.step = step;
  log_step(done.runs, progress);
  const bool last = step == total_steps_;
  // A stop leaves figures to the run that goes on; behind the last step there is none.
  if (owes_figures(step) && (last || !stop_)) evaluate(step);
  if (stop_ || last || due(step, parts_.options.checkpoint.every_steps)) {
    outcome.checkpoint = save(step);
    log_timing(step, progress);
  }
}

/// A finite gradient does not make a finite update.
void Trainer::require_finite_state(std::int64_t step) {
  TrainingState& state = parts_.state;
  const std::int64_t samples = parts_.step.samples_per_step();
  nlohmann::json mine;  // what this rank finds, of the first run that has something
  for (std::size_t i = 0; i < state.trainees.size(); ++i) {
    if (!mine.is_null() && mine.at("run") <= state.trainees[i].run) continue;
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
      mine = {{"run", state.trainees[i].run},
              {"message", non_finite_message(where, what, step, {(step - 1) * samples, step * samples})}};
      break;
    }
  }
  for (const std::string& text : parts_.environment.world.all_gather_text(mine.dump(), "what is not finite")) {
    const auto found = nlohmann::json::parse(text);
    if (!found.is_null()) throw DivergedRun(found.at("run"), found.at("message"));
  }
}

void Trainer::evaluate(std::int64_t step) {
  using Patience = TrainingStep::Patience;
  const auto figures = parts_.step.evaluate(step, step == total_steps_ ? Patience::kToTheEnd : Patience::kUntilStop);
  stop_ = stop_ || !figures;
  if (!figures || figures->empty() || figures->front().empty()) return;
  for (std::size_t run = 0; run < figures->size(); ++run)
    if (MetricsLog* log = parts_.outputs[run].log) log->held_out(step, (*figures)[run]);
  parts_.environment.print(fmt::format("step {}: held-out {}", step, summary(*figures)));
}

bool Trainer::owes_figures(std::int64_t step) const {
  return step == total_steps_ || due(step, parts_.options.train.evaluate_every_steps);
}

/// Whether the run that was stopped behind this step had come to it.
bool Trainer::has_figures(std::int64_t step) {
  return !on_rank_zero(parts_.environment.world, [&] {
            const bool all = std::ranges::all_of(
                parts_.outputs, [&](const RunOutput& output) { return output.log->has_held_out(step); });
            return std::string(all ? "yes" : "");
          }).empty();
}

/// Begins a save, or makes it where it must be there afterwards; then its path.
std::string Trainer::save(std::int64_t step) {
  const auto start = std::chrono::steady_clock::now();
  const bool final_save = stop_ || step == total_steps_;
  parts_.environment.heartbeat(fmt::format("checkpoint of step {}", step));
  require_finite_state(step);
  std::string first;
  if (saves_ && saves_->under_way()) attempt(saves_->step(), MayFail::kYes, [&] { saves_->finish(); });
  if (saves_ && !final_save) {
    attempt(step, MayFail::kYes, [&] {
      sync_logs();
      saves_->begin(step, parts_.state);
    });
  } else {
    attempt(step, final_save ? MayFail::kNo : MayFail::kYes, [&] {
      sync_logs();
      for (const RunOutput& output : parts_.outputs) {
        const std::string path = output.checkpointer.save(step, parts_.state);
        if (first.empty()) first = path;
      }
    });
  }
  checkpoint_seconds_ += seconds_since(start);
  return first;
}

/// A checkpoint of a step counts on the lines of the steps before.
void Trainer::sync_logs() {
  agree(parts_.environment.world, [&] {
    for (const RunOutput& output : parts_.outputs)
      if (output.log != nullptr) output.log->sync();
  });
}

/// Goes on with a save that is written beside training.
void Trainer::advance_save() {
  if (!saves_ || !saves_->under_way()) return;
  const auto start = std::chrono::steady_clock::now();
  attempt(saves_->step(), MayFail::kYes, [&] { saves_->advance(); });
  checkpoint_seconds_ += seconds_since(start);
}

/// A save that ends the run must succeed; a periodic one may fail a few times, loudly.
void Trainer::attempt(std::int64_t step, MayFail may_fail, const std::function<void()>& save) {
  try {
    save();
    if (!saves_ || !saves_->under_way()) failed_saves_ = 0;
  } catch (const Error& error) {
    if (may_fail == MayFail::kNo || error.code() != ExitCode::kCannotWrite ||
        ++failed_saves_ > parts_.options.checkpoint.failures_allowed)
      throw;
    if (parts_.environment.world.rank() == 0)
      parts_.environment.print(fmt::format("WARNING: checkpoint of step {} failed ({} of {} allowed in a row): {}",
                                           step, failed_saves_, parts_.options.checkpoint.failures_allowed,
                                           error.what()));
  }
}

void Trainer::log_step(const std::vector<StepMetrics>& runs, ProgressReport& progress) {
  const std::int64_t step = runs.front().step;
  const bool wanted = due(step, parts_.options.log.metrics_every_steps) || step == total_steps_;
  for (std::size_t run = 0; wanted && run < runs.size(); ++run)
    if (MetricsLog* log = parts_.outputs[run].log) log->step(runs[run]);
  progress.update(step * parts_.step.samples_per_step(),
                  [&] { return fmt::format("step {}, {}", step, summary(runs)); });
}

void Trainer::log_timing(std::int64_t step, const ProgressReport& progress) {
  for (const RunOutput& output : parts_.outputs)
    if (output.log != nullptr)
      output.log->timing({.step = step,
                          .seconds = progress.seconds(),
                          .tokens_per_second = static_cast<double>(tokens_) / progress.seconds(),
                          .data_stall_seconds = parts_.step.data_stall_seconds(),
                          .exchange_stall_seconds = parts_.step.exchange_stall_seconds(),
                          .checkpoint_seconds = checkpoint_seconds_,
                          .ranks = parts_.environment.world.size(),
                          .share = output.share});
}

}  // namespace tadapt
