#include "runtime/sweep/study.h"

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>

#include "data/checkpoint.h"
#include "data/json.h"
#include "runtime/train/agreement.h"
#include "runtime/train/run_directory.h"

namespace tadapt {
namespace {

namespace fs = std::filesystem;

std::vector<SweepPoint> points_in(FileSystem& files, const fs::path& study) {
  std::vector<SweepPoint> points;
  if (!files.exists(study)) return points;
  const nlohmann::json before = parse_json(read_text(files, study), study);
  for (const char* list : {"points", "unfinished", "failed"}) {
    if (!before.is_object() || !before.contains(list))
      throw DataError("{}: no '{}'; expected the results of a sweep", study.string(), list);
    for (const auto& one : before.at(list)) points.push_back({one.at("dictionary"), one.at("l1"), one.at("seed")});
  }
  return points;
}

}  // namespace

Study::Study(const RunOptions& common, fs::path directory, std::vector<SweepPoint> points,
             const RunEnvironment& environment)
    : common_(common), directory_(std::move(directory)), points_(std::move(points)), environment_(environment) {
  agree(environment.world, [&] {
    const std::vector<SweepPoint> before = points_in(environment.files, directory_ / kStudyFile);
    points_.insert(points_.end(), before.begin(), before.end());
  });
  std::ranges::sort(points_);
  points_.erase(std::unique(points_.begin(), points_.end()), points_.end());
}

bool Study::exists(const fs::path& path) const {
  return !on_rank_zero(environment_.world, [&] {
            return std::string(environment_.files.exists(path) ? "yes" : "");
          }).empty();
}

std::string Study::divergence(const SweepPoint& point) const {
  return on_rank_zero(environment_.world, [&] {
    const fs::path note = options(point).dir / kDivergedFile;
    if (!environment_.files.exists(note)) return std::string();
    return parse_json(read_text(environment_.files, note), note).value("reason", "no reason is given");
  });
}

bool Study::is_finished(const SweepPoint& point) {
  if (!finished_.contains(point) && outcome_so_far(options(point), environment_).finished) finished_.insert(point);
  return finished_.contains(point);
}

bool Study::is_evaluated(const SweepPoint& point) const { return exists(options(point).dir / kEvaluationFile); }

/// 0 where manifest or state are damaged.
std::int64_t Study::step_of(const fs::path& checkpoint) const {
  try {
    return open_checkpoint(environment_.files, checkpoint).step;
  } catch (const DataError&) {
    return 0;
  } catch (const MissingInputError&) {
    return 0;
  }
}

std::vector<Standing> Study::standings() {
  std::vector<Standing> unfinished;
  for (const SweepPoint& point : points_) {
    if (finished_.contains(point) || !divergence(point).empty()) continue;
    Standing run{.options = options(point), .steps = {}};
    const TrainingOutcome newest = outcome_so_far(run.options, environment_);
    if (newest.finished) {
      finished_.insert(point);
      continue;
    }
    const std::string steps = on_rank_zero(environment_.world, [&] {
      nlohmann::json found = nlohmann::json::array({0});
      for (const fs::path& path : list_checkpoints(environment_.files, run.options.dir / "checkpoints"))
        if (const std::int64_t step = step_of(path); step > 0 && step <= newest.step) found.push_back(step);
      return found.dump();
    });
    run.steps = nlohmann::json::parse(steps).get<std::vector<std::int64_t>>();
    std::ranges::sort(run.steps, std::greater());
    unfinished.push_back(std::move(run));
  }
  return unfinished;
}

std::string Study::checkpoint_at(const RunOptions& options, std::int64_t step) const {
  if (step == 0) return {};
  return on_rank_zero(environment_.world, [&] {
    for (const fs::path& path : list_checkpoints(environment_.files, options.dir / "checkpoints"))
      if (step_of(path) == step) return path.string();
    throw DataError("{}: the checkpoint of step {} has gone", options.dir.string(), step);
  });
}

}  // namespace tadapt
