#include "runtime/report/timing_summary.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "data/json.h"
#include "data/line_reader.h"

namespace tadapt {
namespace {
using Json = nlohmann::json;

bool has_number(const Json& line, const char* key) { return line.contains(key) && line[key].is_number(); }

bool is_timing(const Json& line) {
  return line.is_object() && has_number(line, "step") && has_number(line, "seconds") &&
         has_number(line, "tokens_per_second");
}

/// A job as its last line has it.
Json job_of(const Json& line, const Json& first_step) {
  Json job = {{"first_step", first_step}, {"parts", Json::object()}};
  double rest = line["seconds"];
  for (const auto& [key, value] : line.items()) {
    constexpr std::string_view kUnit = "_seconds";
    if (!value.is_number()) continue;
    if (!key.ends_with(kUnit)) {
      job[key] = value;
      continue;
    }
    job["parts"][key.substr(0, key.size() - kUnit.size())] = value;
    rest -= value.get<double>();
  }
  job["parts"]["compute"] = std::max(0.0, rest);
  return job;
}

double tokens_of(const Json& line) { return line["tokens_per_second"].get<double>() * line["seconds"].get<double>(); }

}  // namespace

Json timing_summary(FileSystem& files, const std::filesystem::path& path) {
  Json jobs = Json::array(), speed = Json::array();
  if (!files.exists(path)) return {{"jobs", jobs}, {"speed", speed}};
  LineReader lines(files, path);
  Json before;
  std::int64_t number = 0;
  for (std::string text; lines.next(text);) {
    ++number;
    const Json line = Json::parse(text, nullptr, false);
    if (!is_timing(line) && !lines.ended()) break;
    if (!is_timing(line))
      throw DataError("{}:{}: expected a JSON object with step, seconds and tokens_per_second, found {}", path.string(),
                      number, in_quotes(text.substr(0, 80)));
    const bool new_job = before.is_null() || line["seconds"] < before["seconds"];
    const double seconds = line["seconds"].get<double>() - (new_job ? 0.0 : before["seconds"].get<double>());
    const double tokens = tokens_of(line) - (new_job ? 0.0 : tokens_of(before));
    if (seconds > 0.0) speed.push_back({{"step", line["step"]}, {"tokens_per_second", tokens / seconds}});
    const Json first_step = new_job ? line["step"] : jobs.back()["first_step"];
    if (!new_job) jobs.erase(jobs.size() - 1);
    jobs.push_back(job_of(line, first_step));
    before = line;
  }
  return {{"jobs", jobs}, {"speed", speed}};
}

}  // namespace tadapt
