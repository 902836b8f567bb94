#include "runtime/report/report.h"

#include <algorithm>
#include <map>

#include "data/html_page.h"
#include "data/json.h"
#include "runtime/report/page_files.h"
#include "runtime/report/run_record.h"
#include "runtime/report/sweep_record.h"
#include "runtime/train/option_table.h"
#include "runtime/train/run_directory.h"

namespace tadapt {
namespace {
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

/// How many points curves have: as many as a chart can show, fewer when there are so many curves that the page would
/// become large.
std::size_t points_for(const std::vector<RunRecord>& runs) {
  constexpr std::size_t kNumbersInAll = 600'000, kMost = 400, kFewest = 40, kNumbersAPoint = 3;
  std::size_t series = 1;
  for (const RunRecord& run : runs) series += run.series_count();
  return std::clamp(kNumbersInAll / (kNumbersAPoint * series), kFewest, kMost);
}

/// The folder of the sweep's recommended run; empty when it has none.
fs::path recommended_run(FileSystem& files, const ReportSubject& sweep, const nlohmann::json& json) {
  const auto index = json.find("recommended");
  if (index == json.end() || index->is_null()) return {};
  const std::string folder = json["points"][index->get<std::size_t>()].value("run", "");
  if (folder.empty() || !files.exists(sweep.path / folder / kRunFile)) return {};
  return (sweep.path / folder).lexically_normal();
}

Json options_json() {
  const RunOptions defaults;
  Json options = Json::array();
  for (const Option& option : option_table())
    options.push_back({{"key", option.key},
                       {"unit", option.unit},
                       {"description", option.description},
                       {"default", option.value(defaults)},
                       {"matters", option.on_resume == OnResume::kMustMatch}});
  return options;
}

/// A page of these scripts.
std::string page_of(std::initializer_list<const char*> scripts, const Json& data) {
  std::string script;
  for (const char* part : scripts) script += page_file(part);
  const std::string text = json_for_script(data);
  return filled_page(page_file("page.html"), {{"/* page.css */", page_file("page.css")},
                                              {"/* chart.min.js */", page_file("chart.min.js")},
                                              {"{/* data */}", text},
                                              {"/* page.js */", script}});
}

std::string last_part(const fs::path& path) {
  const fs::path normal = path.lexically_normal();
  return (normal.has_filename() ? normal : normal.parent_path()).filename().string();
}

}  // namespace

std::vector<ReportSubject> report_subjects(const std::vector<fs::path>& paths) {
  std::map<std::string, int> named;
  for (const fs::path& path : paths) ++named[last_part(path)];
  std::vector<ReportSubject> subjects;
  for (const fs::path& path : paths) {
    const std::string name = last_part(path);
    subjects.push_back({path, named[name] > 1 || name.empty() ? path.lexically_normal().string() : name});
    const bool twice = std::ranges::count(subjects, subjects.back().name, &ReportSubject::name) > 1;
    if (twice) throw ConfigError("{}: is given twice", path.string());
  }
  return subjects;
}

Json report_data(FileSystem& files, const std::vector<ReportSubject>& subjects) {
  std::vector<ReportSubject> run_subjects;
  Json sweeps = Json::array();
  for (const ReportSubject& subject : subjects) {
    if (!files.exists(subject.path)) throw MissingInputError("{}: there is no such path", subject.path.string());
    const bool is_run = files.exists(subject.path / kRunFile), is_sweep = files.exists(subject.path / kSweepFile);
    if (!is_run && !is_sweep)
      throw MissingInputError("{}: neither a run nor a sweep: it holds no {} and no {}", subject.path.string(),
                              kRunFile, kSweepFile);
    if (is_run) run_subjects.push_back(subject);
    if (!is_sweep) continue;
    const nlohmann::json sweep = read_sweep(files, subject.path);
    sweeps.push_back({{"name", subject.name}, {"path", subject.path.string()}, {"data", sweep}});
    if (const fs::path best = recommended_run(files, subject, sweep); !best.empty())
      run_subjects.push_back({best, subject.name + "/" + last_part(best)});
  }
  std::vector<RunRecord> runs;
  for (const ReportSubject& subject : run_subjects) runs.push_back(read_run(files, subject.path));
  const std::size_t points = points_for(runs);
  Json data = {{"made_by", "tadapt " TADAPT_VERSION}, {"options", options_json()}, {"runs", Json::array()}};
  for (std::size_t i = 0; i < runs.size(); ++i) data["runs"].push_back(to_json(runs[i], run_subjects[i].name, points));
  data["sweeps"] = sweeps;
  return data;
}

std::string json_for_script(const Json& data) {
  return text_for_script(data.dump(-1, ' ', false, Json::error_handler_t::replace));
}

std::string report_page(const Json& data) {
  return page_of({"format.js", "elements.js", "charts.js", "series.js", "summary.js", "training.js", "layers.js",
                  "faithfulness.js", "benchmark.js", "speed.js", "sweep.js", "configuration.js", "main.js"},
                 data);
}

std::string study_page(const Json& data) {
  return page_of({"format.js", "elements.js", "charts.js", "benchmark.js", "study.js"}, data);
}

}  // namespace tadapt
