#include "runtime/report/curves.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>

namespace tadapt {
namespace {
using Json = nlohmann::json;

/// To 5 digits: no chart shows more, and a page has many.
Json shown(double value) { return std::isfinite(value) ? Json(std::stod(fmt::format("{:.5g}", value))) : Json(); }

}  // namespace

void Curves::Cell::join(const Cell& other) {
  if (other.count == 0) return;
  low = count == 0 ? other.low : std::min(low, other.low);
  high = count == 0 ? other.high : std::max(high, other.high);
  sum += other.sum;
  count += other.count;
}

void Curves::add(const MetricsLine& line) {
  if (points_.empty() || points_.back().lines == lines_per_point_) {
    if (points_.size() == 2 * most_points_) {
      join_neighbours(2);
      lines_per_point_ *= 2;
    }
    points_.push_back({});
  }
  // Steps between two lines were not logged: they had about as many tokens.
  tokens_ += line.tokens * (line.step - step_);
  step_ = line.step;
  points_.back().steps += static_cast<double>(line.step);
  points_.back().tokens = tokens_;
  ++points_.back().lines;
  for (std::size_t place = 0; place < line.figures.size(); ++place) {
    const MetricsFigure& figure = line.figures[place];
    Series& series = series_of(figure, place);
    series.cells.resize(points_.size());
    if (std::isfinite(figure.value)) series.cells.back().join({figure.value, figure.value, figure.value, 1});
    series.last.push_back(figure.value);
    if (series.last.size() > kLastLines) series.last.pop_front();
  }
}

Curves::Series& Curves::series_of(const MetricsFigure& figure, std::size_t expected_place) {
  const auto fits = [&](const Series& series) {
    return series.metric == figure.metric && series.trainee == figure.trainee;
  };
  if (expected_place < series_.size() && fits(series_[expected_place])) return series_[expected_place];
  const auto found = std::ranges::find_if(series_, fits);
  if (found != series_.end()) return *found;
  return series_.emplace_back(Series{figure.metric, figure.trainee});
}

void Curves::join_neighbours(std::size_t how_many) {
  std::vector<Point> points;
  for (std::size_t i = 0; i < points_.size(); ++i) {
    if (i % how_many == 0) points.push_back({});
    points.back().steps += points_[i].steps;
    points.back().tokens = points_[i].tokens;
    points.back().lines += points_[i].lines;
  }
  for (Series& series : series_) {
    std::vector<Cell> cells((series.cells.size() + how_many - 1) / how_many);
    for (std::size_t i = 0; i < series.cells.size(); ++i) cells[i / how_many].join(series.cells[i]);
    series.cells = std::move(cells);
  }
  points_ = std::move(points);
}

Json Curves::series_json(const Series& series) const {
  double last = 0.0;
  for (const double value : series.last) last += value / static_cast<double>(series.last.size());
  Json json = {{"metric", series.metric}, {"trainee", series.trainee}, {"last", shown(last)}};
  const bool thinned = std::ranges::any_of(points_, [](const Point& point) { return point.lines > 1; });
  for (std::size_t i = 0; i < points_.size(); ++i) {
    const Cell cell = i < series.cells.size() ? series.cells[i] : Cell{};
    const bool has_number = cell.count > 0;
    json["mean"].push_back(has_number ? shown(cell.sum / static_cast<double>(cell.count)) : Json());
    if (!thinned) continue;
    json["low"].push_back(has_number ? shown(cell.low) : Json());
    json["high"].push_back(has_number ? shown(cell.high) : Json());
  }
  return json;
}

Json Curves::to_json(std::size_t points) const {
  Curves thinned = *this;
  if (points_.size() > points) thinned.join_neighbours((points_.size() + points - 1) / points);
  Json json = {{"step", Json::array()}, {"tokens", Json::array()}, {"series", Json::array()}};
  for (const Point& point : thinned.points_) {
    json["step"].push_back(point.steps / static_cast<double>(point.lines));
    json["tokens"].push_back(point.tokens);
  }
  for (const Series& series : thinned.series_) json["series"].push_back(thinned.series_json(series));
  return json;
}

}  // namespace tadapt
