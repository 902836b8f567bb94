#include "runtime/report/run_record.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "data/checkpoint.h"
#include "data/json.h"
#include "runtime/report/timing_summary.h"
#include "runtime/train/metrics.h"
#include "runtime/train/option_table.h"
#include "runtime/train/run_directory.h"
#include "runtime/train/run_state.h"

namespace tadapt {
namespace {
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

/// Above these a reader is told.
constexpr double kManyDead = 0.1;    ///< share of a layer's features
constexpr double kLongStall = 0.05;  ///< share of a job's time

/// More than a page ever shows, so that what it shows is joined evenly.
constexpr std::size_t kPointsKept = 1000;

NamedJson read_json(FileSystem& files, const fs::path& file, const std::string& name) {
  const std::string text = read_text(files, file);
  parse_json(text, file);  // for its checks; the order of keys is the file's
  Json json = Json::parse(text);
  if (!json.is_object()) throw DataError("{}: expected a JSON object", file.string());
  return {name, std::move(json)};
}

void read_results(FileSystem& files, RunRecord& run) {
  for (const std::string& name : files.list(run.path)) {
    const fs::path entry = run.path / name;
    if (name.starts_with("evaluation") && name.ends_with(".json"))
      run.evaluations.push_back(read_json(files, entry, entry.stem().string()));
    else if (files.exists(entry / "benchmark.json"))
      run.benchmarks.push_back(read_json(files, entry / "benchmark.json", name));
  }
  std::ranges::sort(run.evaluations, {}, &NamedJson::name);
}

void read_state(FileSystem& files, RunRecord& run) {
  for (const fs::path& checkpoint : list_checkpoints(files, run.path / "checkpoints")) {
    try {
      run.state = open_checkpoint(files, checkpoint).state;
      break;
    } catch (const DataError& error) {
      run.findings.push_back(
          {Finding::Level::kWarning, fmt::format("A checkpoint is damaged and not used: {}", error.what())});
    }
  }
  run.total_steps = run.options.train.steps;
  if (run.state.is_object()) run.total_steps = run.state.value(kTotalSteps, run.total_steps);
}

/// Per figure the first step at which it is no number.
void note_null(const MetricsLine& line, std::map<std::string, std::int64_t>& nulls) {
  for (const MetricsFigure& figure : line.figures)
    if (!std::isfinite(figure.value) && figure.trainee != kMean)
      nulls.try_emplace(figure.trainee == kWhole ? figure.metric : figure.trainee + ": " + figure.metric, line.step);
}

/// `dead`: share of each trainee's features at the last step.
void judge_dead(const std::map<std::string, double>& dead, RunRecord& run) {
  std::vector<std::string> many;
  for (const auto& [trainee, share] : dead)
    if (share > kManyDead) many.push_back(fmt::format("{} ({:.0f} %)", trainee, 100 * share));
  if (many.empty()) return;
  run.findings.push_back(
      {Finding::Level::kWarning, fmt::format("Many features were active on none of the last {} tokens: {}",
                                             run.options.train.dead_after_tokens, fmt::join(many, ", "))});
}

void read_curves(FileSystem& files, RunRecord& run) {
  const fs::path file = run.path / kMetricsFile;
  if (!files.exists(file))
    throw MissingInputError("{}: nothing was trained here yet: no {}", run.path.string(), kMetricsFile);
  std::map<std::string, std::int64_t> nulls;
  std::map<std::string, double> dead;
  read_metrics(files, file, [&](const MetricsLine& line) {
    run.step = line.step;
    note_null(line, nulls);
    if (line.kind == MetricsLine::Kind::kHeldOut) run.held_out.add(line);
    if (line.kind == MetricsLine::Kind::kNotFinite) run.findings.push_back({Finding::Level::kProblem, line.message});
    if (line.kind != MetricsLine::Kind::kStep) return;
    run.training.add(line);
    for (const MetricsFigure& figure : line.figures)
      if (figure.metric == "dead_share" && figure.trainee != kMean) dead[figure.trainee] = figure.value;
  });
  if (run.training.empty()) throw DataError("{}: holds no step: nothing was trained yet", file.string());
  for (const auto& [what, step] : nulls)
    run.findings.push_back({Finding::Level::kProblem, fmt::format("{} is not finite from step {} on", what, step)});
  judge_dead(dead, run);
}

void judge_progress(RunRecord& run) {
  if (run.total_steps > 0 && run.step < run.total_steps)
    run.findings.push_back({Finding::Level::kWarning,
                            fmt::format("Unfinished: at step {} of {} ({:.0f} %). It is still running, was stopped, or "
                                        "failed; the same command continues it.",
                                        run.step, run.total_steps,
                                        100.0 * static_cast<double>(run.step) / static_cast<double>(run.total_steps))});
  if (run.total_steps == 0)
    run.findings.push_back({Finding::Level::kWarning,
                            fmt::format("Unfinished: at step {}, before its first checkpoint. It is still running, was "
                                        "stopped, or failed.",
                                        run.step)});
}

void judge_timing(RunRecord& run) {
  for (const auto& job : run.timing["jobs"]) {
    const double seconds = job["seconds"], stall = job["parts"].value("data_stall", 0.0);
    if (stall > kLongStall * seconds)
      run.findings.push_back(
          {Finding::Level::kWarning, fmt::format("Up to step {} the run waited for data in {:.0f} % of its time",
                                                 job["step"].get<std::int64_t>(), 100 * stall / seconds)});
  }
}

Json array_of(const std::vector<NamedJson>& files) {
  Json all = Json::array();
  for (const NamedJson& file : files) all.push_back({{"name", file.name}, {"data", file.json}});
  return all;
}

/// What of the newest checkpoint says where the numbers come from; {key: text or number}.
Json provenance(const RunRecord& run) {
  Json known = {{"run directory", run.path.string()}, {"configuration", config_hash(run.options)}};
  if (!run.state.is_object()) return known;
  for (const auto& [key, value] : run.state.items()) {
    if (key == "versions" && value.is_object())
      for (const auto& [what, version] : value.items()) known["version of " + what] = version;
    else if (value.is_primitive() && key != "config_hash")
      known[key] = value;
  }
  return known;
}

}  // namespace

RunRecord read_run(FileSystem& files, const fs::path& path) {
  RunRecord run{.path = path,
                .options = options_of_run(files, path),
                .training = Curves(kPointsKept),
                .held_out = Curves(kPointsKept)};
  read_curves(files, run);
  read_state(files, run);
  run.timing = timing_summary(files, path / "timing.jsonl");
  read_results(files, run);
  judge_progress(run);
  judge_timing(run);
  return run;
}

Json to_json(const RunRecord& run, const std::string& name, std::size_t points) {
  Json json = {{"name", name},
               {"step", run.step},
               {"total_steps", run.total_steps},
               {"tokens", run.training.tokens()},
               {"timing", run.timing}};
  json["training"] = run.training.to_json(points);
  json["held_out"] = run.held_out.to_json(points);
  json["evaluations"] = array_of(run.evaluations);
  json["benchmarks"] = array_of(run.benchmarks);
  json["provenance"] = provenance(run);
  for (const Option& option : option_table()) json["configuration"][option.key] = option.value(run.options);
  json["findings"] = Json::array();
  for (const Finding& finding : run.findings)
    json["findings"].push_back(
        {{"level", finding.level == Finding::Level::kProblem ? "problem" : "warning"}, {"text", finding.text}});
  return json;
}

}  // namespace tadapt
