#include "runtime/sweep/sweep_results.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "data/json.h"
#include "runtime/train/metrics.h"

namespace tadapt {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

std::vector<Json> lines_of(FileSystem& files, const fs::path& path) {
  std::vector<Json> lines;
  std::istringstream text(read_text(files, path));
  for (std::string line; std::getline(text, line);) {
    lines.push_back(Json::parse(line, nullptr, false));
    if (!lines.back().is_object()) throw DataError("{}: line {} is no JSON object", path.string(), lines.size());
  }
  return lines;
}

/// A number of a JSON object; what is not finite stands there as null.
double number(const Json& object, const char* key, const fs::path& path) {
  const auto found = object.find(key);
  if (found == object.end()) throw DataError("{}: no '{}'", path.string(), key);
  return found->is_number() ? found->get<double>() : std::numeric_limits<double>::quiet_NaN();
}

int layer_of(const std::string& name) { return std::stoi(name.substr(name.find('-') + 1)); }

SweepFigures mean_of(const std::vector<SweepFigures>& layers) {
  SweepFigures mean;
  const auto count = static_cast<double>(std::max<std::size_t>(1, layers.size()));
  for (const SweepFigures& one : layers) {
    mean.l0 += one.l0 / count;
    mean.nmse += one.nmse / count;
    mean.dead_share += one.dead_share / count;
  }
  return mean;
}

void read_evaluation(FileSystem& files, const fs::path& path, SweepResult& result) {
  const Json evaluation = Json::parse(parse_json(read_text(files, path), path).dump());
  for (const Json& layer : evaluation.at("layers")) {
    result.layers.push_back(layer.at("layer"));
    result.by_layer.push_back({.l0 = number(layer, "l0", path),
                               .nmse = number(layer, "delta_nmse", path),
                               .kl = std::nullopt,
                               .dead_share = number(layer, "dead_share", path)});
  }
  result.whole = mean_of(result.by_layer);
  for (const Json& model : evaluation.at("models"))
    if (model.at("model") == "adapter") result.whole.kl = number(model.at("response"), "token_kl", path);
}

void read_metrics(FileSystem& files, const fs::path& path, SweepResult& result) {
  std::map<int, SweepFigures> layers;
  for (const Json& line : lines_of(files, path)) {
    for (const char* part : {"trainees", "held_out"}) {
      if (!line.contains(part)) continue;
      for (const auto& [name, figures] : line.at(part).items()) {
        if (!figures.is_object()) continue;  // a figure of the whole
        SweepFigures& layer = layers[layer_of(name)];
        if (figures.contains("l0")) layer.l0 = number(figures, "l0", path);
        if (figures.contains("nmse")) layer.nmse = number(figures, "nmse", path);
        if (figures.contains("dead_share")) layer.dead_share = number(figures, "dead_share", path);
      }
    }
  }
  for (const auto& [layer, figures] : layers) {
    result.layers.push_back(layer);
    result.by_layer.push_back(figures);
  }
  result.whole = mean_of(result.by_layer);
}

/// Each start of the program counts its seconds anew.
void read_timing(FileSystem& files, const fs::path& path, SweepResult& result) {
  double last = 0.0, cost_factor = 0.0;
  const auto add = [&] {
    result.seconds += last;
    result.rank_seconds += last * cost_factor;
  };
  for (const Json& line : lines_of(files, path)) {
    const double seconds = number(line, "seconds", path);
    if (seconds < last) add();
    last = seconds;
    cost_factor = number(line, "ranks", path) * line.value("share", 1.0);
    result.tokens_per_second = number(line, "tokens_per_second", path);
  }
  add();
}

std::vector<Tradeoff> tradeoffs(const std::vector<SweepResult>& results, bool by_kl) {
  std::vector<Tradeoff> points;
  for (const SweepResult& one : results)
    points.push_back(
        {one.whole.l0, by_kl ? one.whole.kl.value_or(std::numeric_limits<double>::quiet_NaN()) : one.whole.nmse});
  return points;
}

Json json_of(const SweepFigures& figures) {
  return {{"l0", figures.l0},
          {"nmse", figures.nmse},
          {"kl", figures.kl ? Json(*figures.kl) : Json(nullptr)},
          {"dead_share", figures.dead_share}};
}

Json json_of(const SweepPoint& point) {
  return {{"dictionary", point.dictionary}, {"l1", point.sparsity}, {"seed", point.seed}};
}

Json json_of(const SweepResult& result) {
  Json object = json_of(result.point);
  object["layer"] = "all";
  object.update(json_of(result.whole));
  object["tokens_per_second"] = result.tokens_per_second;
  object["seconds"] = result.seconds;
  object["rank_seconds"] = result.rank_seconds;
  object["run"] = result.run;
  Json& layers = object["layers"] = Json::array();
  for (std::size_t i = 0; i < result.layers.size(); ++i) {
    Json layer = {{"layer", result.layers[i]}};
    layer.update(json_of(result.by_layer[i]));
    layer.erase("kl");
    layers.push_back(std::move(layer));
  }
  return object;
}

std::string csv_line(const SweepResult& result, const std::string& layer, const SweepFigures& figures) {
  const SweepPoint& point = result.point;
  return fmt::format("{},{},{},{},{},{},{},{},{},{},{},{}\n", point.dictionary, point.sparsity, point.seed, layer,
                     figures.l0, figures.nmse, figures.kl ? fmt::format("{}", *figures.kl) : "", figures.dead_share,
                     result.tokens_per_second, result.seconds, result.rank_seconds, result.run);
}

}  // namespace

SweepResult load_result(FileSystem& files, const fs::path& directory, const SweepPoint& point) {
  SweepResult result{.point = point, .run = "runs/" + point.name(), .whole = {}, .layers = {}, .by_layer = {}};
  const fs::path run = directory / result.run;
  if (files.exists(run / "evaluation.json"))
    read_evaluation(files, run / "evaluation.json", result);
  else
    read_metrics(files, run / kMetricsFile, result);
  if (files.exists(run / "timing.jsonl")) read_timing(files, run / "timing.jsonl", result);
  return result;
}

SweepAnalysis analyse(const std::vector<SweepResult>& results) {
  SweepAnalysis analysis;
  const std::vector<Tradeoff> by_nmse = tradeoffs(results, false), by_kl = tradeoffs(results, true);
  analysis.nmse_front = pareto_front(by_nmse);
  analysis.kl_front = pareto_front(by_kl);
  analysis.recommended =
      analysis.kl_front.empty() ? knee(by_nmse, analysis.nmse_front) : knee(by_kl, analysis.kl_front);
  std::set<double> sparsities;
  for (const SweepResult& one : results) sparsities.insert(one.point.sparsity);
  for (const double sparsity : sparsities) {
    std::vector<double> sizes, nmse, kl;
    for (const SweepResult& one : results) {
      if (one.point.sparsity != sparsity) continue;
      sizes.push_back(static_cast<double>(one.point.dictionary));
      nmse.push_back(one.whole.nmse);
      kl.push_back(one.whole.kl.value_or(0.0));
    }
    if (const auto law = fit_power_law(sizes, nmse)) analysis.fits.push_back({sparsity, "nmse", *law});
    if (const auto law = fit_power_law(sizes, kl)) analysis.fits.push_back({sparsity, "kl", *law});
  }
  return analysis;
}

std::string to_json(const std::vector<SweepResult>& results, const SweepAnalysis& analysis,
                    const std::vector<SweepPoint>& unfinished, const std::vector<SweepFailure>& failed) {
  Json object = {{"points", Json::array()},
                 {"pareto", {{"nmse", analysis.nmse_front}, {"kl", analysis.kl_front}}},
                 {"fits", Json::array()},
                 {"recommended", analysis.recommended ? Json(*analysis.recommended) : Json(nullptr)},
                 {"unfinished", Json::array()},
                 {"failed", Json::array()}};
  for (const SweepResult& one : results) object["points"].push_back(json_of(one));
  for (const SweepFit& fit : analysis.fits)
    object["fits"].push_back({{"l1", fit.sparsity},
                              {"metric", fit.figure},
                              {"amplitude", fit.law.amplitude},
                              {"exponent", fit.law.exponent},
                              {"low", fit.law.low},
                              {"high", fit.law.high}});
  for (const SweepPoint& point : unfinished) object["unfinished"].push_back(json_of(point));
  for (const SweepFailure& failure : failed) {
    object["failed"].push_back(json_of(failure.point));
    object["failed"].back()["reason"] = failure.reason;
  }
  return object.dump(1) + "\n";
}

std::string to_csv(const std::vector<SweepResult>& results) {
  std::string csv = "dictionary,l1,seed,layer,l0,nmse,kl,dead_share,tokens_per_second,seconds,rank_seconds,run\n";
  for (const SweepResult& result : results) {
    csv += csv_line(result, "all", result.whole);
    for (std::size_t i = 0; i < result.layers.size(); ++i)
      csv += csv_line(result, std::to_string(result.layers[i]), result.by_layer[i]);
  }
  return csv;
}

std::string to_table(const std::vector<SweepResult>& results, const SweepAnalysis& analysis) {
  std::string table = fmt::format("{:>10} {:>9} {:>5} {:>9} {:>8} {:>10} {:>8} {:>10} {:>9}\n", "dictionary", "lambda",
                                  "seed", "L0", "NMSE", "token KL", "dead", "tokens/s", "rank s");
  const std::vector<std::size_t>& front = analysis.kl_front.empty() ? analysis.nmse_front : analysis.kl_front;
  for (std::size_t i = 0; i < results.size(); ++i) {
    const auto& [point, run, whole, layers, by_layer, seconds, rate, rank_seconds] = results[i];
    table +=
        fmt::format("{:>10} {:>9} {:>5} {:>9.2f} {:>8.4f} {:>10} {:>7.1f}% {:>10.0f} {:>9.1f}{}{}\n", point.dictionary,
                    point.sparsity, point.seed, whole.l0, whole.nmse, whole.kl ? fmt::format("{:.4g}", *whole.kl) : "-",
                    100.0 * whole.dead_share, rate, rank_seconds,
                    std::ranges::find(front, i) != front.end() ? " *" : "", analysis.recommended == i ? " <" : "");
  }
  table += fmt::format("* no other run has less of both L0 and {}; < the knee of these: a run to begin with\n",
                       analysis.kl_front.empty() ? "NMSE" : "token KL");
  for (const SweepFit& fit : analysis.fits)
    table += fmt::format("lambda {}: {} = {:.4g} · F^{:.3f}, 95 % of the exponent [{:.3f}, {:.3f}]\n", fit.sparsity,
                         fit.figure == "kl" ? "token KL" : "NMSE", fit.law.amplitude, fit.law.exponent, fit.law.low,
                         fit.law.high);
  return table;
}

}  // namespace tadapt
