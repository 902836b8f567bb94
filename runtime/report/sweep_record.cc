#include "runtime/report/sweep_record.h"

#include <cstdint>

#include "data/json.h"
#include "data/json_field.h"

namespace tadapt {
namespace {

void require_point(const JsonField& point) {
  point["dictionary"].integer(1, INT64_MAX);
  point["seed"].integer(0, INT64_MAX);
  if (!point["layer"].is_string())
    point["layer"].integer(0, INT64_MAX);
  else if (point["layer"].string() != "all")
    point["layer"].expected("a number or \"all\"");
  for (const char* key : {"l1", "l0", "nmse"}) point[key].amount();
  for (const char* key : {"kl", "dead_share", "tokens_per_second", "seconds"})
    if (point[key].present()) point[key].amount();
  point["run"].string_or("");
  if (!point["layers"].present()) return;
  for (std::size_t i = 0; i < point["layers"].array().size(); ++i) {
    const JsonField layer = point["layers"].at(i);
    layer["layer"].integer(0, INT64_MAX);
    for (const char* key : {"l0", "nmse", "dead_share"}) layer[key].amount();
  }
}

void require_fit(const JsonField& fit) {
  fit["metric"].string();
  fit["l1"].amount();
  fit["amplitude"].amount();
  for (const char* key : {"exponent", "low", "high"})
    if (!fit[key].is_number()) fit[key].expected("a number");
}

}  // namespace

nlohmann::json read_sweep(FileSystem& files, const std::filesystem::path& folder) {
  const auto path = folder / kSweepFile;
  nlohmann::json sweep = parse_json(read_text(files, path), path);
  const JsonField root(sweep, path.string());
  const auto count = static_cast<std::int64_t>(root["points"].array().size());
  if (count == 0) root["points"].expected("at least one point");
  for (std::size_t i = 0; i < root["points"].array().size(); ++i) require_point(root["points"].at(i));
  for (const char* figure : {"nmse", "kl"}) {
    if (!root["pareto"].present() || !root["pareto"][figure].present()) continue;
    const JsonField front = root["pareto"][figure];
    for (std::size_t i = 0; i < front.array().size(); ++i) front.at(i).integer(0, count - 1);
  }
  if (root["fits"].present())
    for (std::size_t i = 0; i < root["fits"].array().size(); ++i) require_fit(root["fits"].at(i));
  if (root["recommended"].present()) root["recommended"].integer(0, count - 1);
  return sweep;
}

}  // namespace tadapt
