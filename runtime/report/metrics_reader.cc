#include "runtime/report/metrics_reader.h"

#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "data/json.h"
#include "data/line_reader.h"

namespace tadapt {
namespace {
using Json = nlohmann::ordered_json;

std::optional<double> number_of(const Json& value) {
  if (value.is_null()) return std::numeric_limits<double>::quiet_NaN();
  if (value.is_number()) return value.get<double>();
  return std::nullopt;
}

bool is_bookkeeping(const std::string& key) { return key == "step" || key == "tokens"; }

/// The numbers of `object` as figures of the whole, those of the objects inside it as figures of trainees.
void add_figures(MetricsLine& line, const Json& object) {
  for (const auto& [key, value] : object.items()) {
    if (value.is_object()) {
      for (const auto& [metric, of_trainee] : value.items())
        if (const auto number = number_of(of_trainee)) line.figures.push_back({metric, key, *number});
    } else if (const auto number = number_of(value); number && !is_bookkeeping(key)) {
      line.figures.push_back({key, kWhole, *number});
    }
  }
}

void add_means(MetricsLine& line) {
  struct Mean {
    double sum = 0.0;
    int count = 0;
    bool whole_has_it = false;
  };
  std::vector<std::string> order;
  std::map<std::string, Mean> means;
  for (const MetricsFigure& figure : line.figures) {
    const auto [place, is_new] = means.try_emplace(figure.metric);
    if (is_new) order.push_back(figure.metric);
    place->second.whole_has_it |= figure.trainee == kWhole;
    place->second.sum += figure.value;
    ++place->second.count;
  }
  for (const std::string& metric : order) {
    const Mean& mean = means[metric];
    if (!mean.whole_has_it) line.figures.push_back({metric, kMean, mean.sum / mean.count});
  }
}

MetricsLine line_of(const Json& object) {
  MetricsLine line{.step = object["step"].get<std::int64_t>()};
  if (const auto tokens = object.find("tokens"); tokens != object.end() && tokens->is_number_integer())
    line.tokens = tokens->get<std::int64_t>();
  if (const auto message = object.find("not_finite"); message != object.end() && message->is_string()) {
    line.kind = MetricsLine::Kind::kNotFinite;
    line.message = message->get<std::string>();
  } else if (const auto held_out = object.find("held_out"); held_out != object.end() && held_out->is_object()) {
    line.kind = MetricsLine::Kind::kHeldOut;
    add_figures(line, *held_out);
  } else {
    add_figures(line, object);
    if (const auto trainees = object.find("trainees"); trainees != object.end() && trainees->is_object())
      add_figures(line, *trainees);
  }
  add_means(line);
  return line;
}

}  // namespace

void read_metrics(FileSystem& files, const std::filesystem::path& path,
                  const std::function<void(const MetricsLine&)>& take) {
  LineReader lines(files, path);
  std::int64_t number = 0, step = 0;
  for (std::string text; lines.next(text);) {
    ++number;
    const Json object = Json::parse(text, nullptr, false);
    const bool usable = object.is_object() && object.contains("step") && object["step"].is_number_integer();
    if (!usable && !lines.ended()) return;
    if (!usable)
      throw DataError("{}:{}: expected a JSON object with a \"step\", found {}", path.string(), number,
                      in_quotes(text.substr(0, 80)));
    const MetricsLine line = line_of(object);
    if (line.step < step)
      throw DataError("{}:{}: step {} stands behind step {}", path.string(), number, line.step, step);
    step = line.step;
    take(line);
  }
}

}  // namespace tadapt
