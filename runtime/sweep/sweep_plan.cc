#include "runtime/sweep/sweep_plan.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <tuple>

#include "kernels/core/error.h"

namespace tadapt {
namespace {

template <class Value>
void require_distinct(const std::vector<Value>& values, const char* flag) {
  if (values.empty()) throw ConfigError("{}: expected at least one value", flag);
  if (std::set<Value>(values.begin(), values.end()).size() != values.size())
    throw ConfigError("{}: a value is given twice", flag);
}

/// The newest step at which every one of these runs has a checkpoint, or -1.
std::int64_t common_step(const std::vector<Standing>& runs) {
  for (const std::int64_t step : runs.front().steps) {
    const auto has = [&](const Standing& run) { return std::ranges::find(run.steps, step) != run.steps.end(); };
    if (std::ranges::all_of(runs, has)) return step;
  }
  return -1;
}

std::int64_t newest(const Standing& run) { return run.steps.front(); }

void add_cohorts(std::vector<Standing> runs, std::int64_t step, std::size_t most, std::vector<Cohort>& cohorts) {
  // Every so-manieth, so that each part has small and large ones.
  const std::size_t parts = most == 0 ? 1 : (runs.size() + most - 1) / most;
  for (std::size_t part = 0; part < parts; ++part) {
    Cohort& cohort = cohorts.emplace_back();
    for (std::size_t i = part; i < runs.size(); i += parts)
      cohort.push_back({.options = std::move(runs[i].options), .before = {.step = step}});
  }
}

}  // namespace

std::string SweepPoint::name() const { return fmt::format("d{}-l{}-s{}", dictionary, sparsity, seed); }

std::vector<SweepPoint> points_of(const SweepAxes& axes) {
  require_distinct(axes.dictionaries, "--dict");
  require_distinct(axes.sparsities, "--l1");
  require_distinct(axes.seeds, "--seeds");
  std::vector<SweepPoint> points;
  for (const std::int64_t dictionary : axes.dictionaries) {
    if (dictionary < 1) throw ConfigError("--dict: expected a number of features of at least 1, found {}", dictionary);
    for (const double sparsity : axes.sparsities) {
      if (!(sparsity >= 0.0) || std::isinf(sparsity))
        throw ConfigError("--l1: expected a weight that is not negative, found {}", sparsity);
      for (const std::uint64_t seed : axes.seeds) points.push_back({dictionary, sparsity, seed});
    }
  }
  std::ranges::sort(points);
  return points;
}

RunOptions options_of(const SweepPoint& point, const RunOptions& common, const std::filesystem::path& directory) {
  RunOptions options = common;
  options.dir = directory / "runs" / point.name();
  options.adapter.features = point.dictionary;
  options.loss.sparsity = point.sparsity;
  options.train.seed = point.seed;
  if (common.cache.dir.empty()) {
    const bool by_seed = common.cache.tokens_per_sequence > 0;
    options.cache.dir = directory / (by_seed ? fmt::format("cache-s{}", point.seed) : "cache");
  }
  return options;
}

std::vector<Cohort> cohorts_of(std::vector<Standing> runs, std::int64_t step_back, std::size_t most) {
  std::map<std::uint64_t, std::vector<Standing>> by_seed;
  for (Standing& run : runs) by_seed[run.options.train.seed].push_back(std::move(run));
  std::vector<Cohort> cohorts;
  for (auto& [seed, of_seed] : by_seed) {
    std::ranges::sort(of_seed, {}, [](const Standing& run) {
      return std::tuple(-newest(run), run.options.adapter.features, run.options.loss.sparsity);
    });
    while (!of_seed.empty()) {
      // From the furthest on, as many as have a step in common that is near enough.
      std::vector<Standing> together;
      std::int64_t step = newest(of_seed.front());
      while (!of_seed.empty()) {
        together.push_back(of_seed.front());
        const std::int64_t common = newest(of_seed.front()) == step ? step : common_step(together);
        if (common < 0 || newest(together.front()) - common > step_back) {
          together.pop_back();
          break;
        }
        step = common;
        of_seed.erase(of_seed.begin());
      }
      add_cohorts(std::move(together), step, most, cohorts);
    }
  }
  return cohorts;
}

}  // namespace tadapt
