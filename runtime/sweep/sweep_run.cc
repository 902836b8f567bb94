#include "runtime/sweep/sweep_run.h"

#include <memory>
#include <nlohmann/json.hpp>

#include "runtime/eval/evaluation.h"
#include "runtime/loss/loss.h"
#include "runtime/train/agreement.h"
#include "runtime/train/local_run.h"
#include "runtime/train/non_finite_stop.h"
#include "runtime/train/run_directory.h"
#include "runtime/train/train_run.h"

namespace tadapt {
namespace {

namespace fs = std::filesystem;

bool trains_side_by_side(const RunOptions& options) {
  return needs_cached_rows_only(find_objective(options.train.objective));
}

std::unique_ptr<FileLock> lock_study(const SweepRequest& request, const RunEnvironment& environment) {
  std::unique_ptr<FileLock> lock;
  on_rank_zero(environment.world, [&] {
    environment.files.make_directories(request.directory / "runs");
    lock = environment.files.lock(request.directory / "sweep.lock", environment.who);
    return std::string();
  });
  return lock;
}

class Sweep {
 public:
  Sweep(const SweepRequest& request, const RunEnvironment& environment)
      : request_(request),
        environment_(environment),
        lock_(lock_study(request, environment)),
        study_(request.options, request.directory, request.points, environment) {}

  SweepOutcome run() {
    conclude();  // from now on the folder knows its points
    bool stopped = false;
    for (auto cohorts = next_cohorts(request_, study_); !cohorts.empty() && !stopped;
         cohorts = next_cohorts(request_, study_)) {
      std::size_t runs = 0;
      for (const Cohort& cohort : cohorts) runs += cohort.size();
      environment_.print(fmt::format("sweep: {} of {} runs are to be trained, {} of them now, from step {}", runs,
                                     study_.points().size(), cohorts.front().size(),
                                     cohorts.front().front().before.step));
      stopped = !train(cohorts.front());
    }
    if (!stopped && request_.evaluates) evaluate();
    return conclude();
  }

 private:
  /// False when a stop was asked for.
  bool train(Cohort& cohort) {
    try {
      return (trains_side_by_side(request_.options) ? train_together(cohort)
                                                    : run_or_diverge(cohort.front().options, environment_))
          .finished;
    } catch (const DivergedRun& found) {
      note_divergence(cohort.at(static_cast<std::size_t>(found.run())).options.dir, found.what());
      return true;
    }
  }

  TrainingOutcome train_together(Cohort& cohort) {
    std::vector<std::unique_ptr<FileLock>> locks;
    on_rank_zero(environment_.world, [&] {
      for (const PlannedRun& run : cohort)
        locks.push_back(open_run_directory(environment_.files, run.options, environment_.who));
      return std::string();
    });
    for (PlannedRun& run : cohort) run.before.checkpoint = study_.checkpoint_at(run.options, run.before.step);
    return run_local_training(cohort, environment_);
  }

  void note_divergence(const fs::path& run, const std::string& reason) {
    environment_.print(fmt::format("WARNING: {}: {}; the other runs go on without it", run.string(), reason));
    on_rank_zero(environment_.world, [&] {
      write_atomically(environment_.files, run / kDivergedFile, nlohmann::json{{"reason", reason}}.dump() + "\n");
      return std::string();
    });
  }

  /// Runs that have no evaluation yet; the models are loaded once.
  void evaluate() {
    std::unique_ptr<Evaluator> evaluator;
    for (const SweepPoint& point : study_.points()) {
      if (study_.is_evaluated(point) || !study_.divergence(point).empty()) continue;
      const fs::path run = study_.options(point).dir;
      if (!evaluator)
        evaluator = std::make_unique<Evaluator>(request_.options, request_.options.corpus.validation, environment_);
      const Evaluation evaluation =
          evaluator->evaluate(load_fitting_adapters(request_.options, {.path = run, .edit = {}}, environment_),
                              FaithfulnessOptions::Partial::kNone);
      on_rank_zero(environment_.world, [&] {
        write_atomically(environment_.files, run / kEvaluationFile, to_json(evaluation));
        return std::string();
      });
    }
  }

  SweepOutcome conclude() {
    std::vector<SweepPoint> finished, unfinished;
    std::vector<SweepFailure> failed;
    for (const SweepPoint& point : study_.points()) {
      if (const std::string reason = study_.divergence(point); !reason.empty())
        failed.push_back({point, reason});
      else
        (study_.is_finished(point) ? finished : unfinished).push_back(point);
    }
    const std::string table = on_rank_zero(environment_.world, [&] {
      std::vector<SweepResult> results;
      for (const SweepPoint& point : finished)
        results.push_back(load_result(environment_.files, request_.directory, point));
      const SweepAnalysis analysis = analyse(results);
      write_atomically(environment_.files, request_.directory / "sweep.csv", to_csv(results));
      write_atomically(environment_.files, request_.directory / kStudyFile,
                       to_json(results, analysis, unfinished, failed));
      return to_table(results, analysis);
    });
    return {.finished = unfinished.empty(),
            .done = finished.size(),
            .failed = failed.size(),
            .all = study_.points().size(),
            .table = table};
  }

  const SweepRequest& request_;
  const RunEnvironment& environment_;
  std::unique_ptr<FileLock> lock_;
  Study study_;
};

}  // namespace

std::vector<Cohort> next_cohorts(const SweepRequest& request, Study& study) {
  return cohorts_of(study.standings(), request.options.checkpoint.every_steps,
                    trains_side_by_side(request.options) ? request.together : 1);
}

SweepOutcome run_sweep(const SweepRequest& request, const RunEnvironment& environment) {
  return Sweep(request, environment).run();
}

}  // namespace tadapt
