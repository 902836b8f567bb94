// Curves: figures by step, thinned while they come in, so that a run of any length makes a page of bounded size.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "runtime/report/metrics_reader.h"

namespace tadapt {

/// Lines of the metrics as points. A point stands for 1, 2, 4, … lines in a row: mean, lowest and highest of each
/// figure. When there are twice as many points as wanted, neighbours are joined.
class Curves {
 public:
  explicit Curves(std::size_t most_points) : most_points_(most_points) {}

  void add(const MetricsLine& line);

  bool empty() const { return points_.empty(); }
  std::int64_t tokens() const { return tokens_; }
  std::size_t series_count() const { return series_.size(); }
  /// {"step": […], "tokens": […], "series": [{"metric", "trainee", "mean": […], "low": […], "high": […], "last"}]} with
  /// at most `points` points. Numbers have 5 digits; null where there is none. `low` and `high` are left out when every
  /// point is one line; `last` is the mean over the last kLastLines lines.
  nlohmann::json to_json(std::size_t points) const;

  static constexpr std::size_t kLastLines = 20;

 private:
  struct Point {
    double steps = 0.0;  ///< sum over its lines
    std::int64_t tokens = 0;
    std::int64_t lines = 0;
  };
  struct Cell {
    double sum = 0.0, low = 0.0, high = 0.0;
    std::int64_t count = 0;
    void join(const Cell& other);
  };
  struct Series {
    std::string metric, trainee;
    std::vector<Cell> cells = {};  ///< as many as points, or fewer: those behind have no number
    std::deque<double> last = {};
  };

  Series& series_of(const MetricsFigure& figure, std::size_t expected_place);
  void join_neighbours(std::size_t how_many);
  nlohmann::json series_json(const Series& series) const;

  std::size_t most_points_;
  std::int64_t lines_per_point_ = 1;
  std::int64_t step_ = 0;    ///< of the last line
  std::int64_t tokens_ = 0;  ///< up to there
  std::vector<Point> points_;
  std::vector<Series> series_;
};

}  // namespace tadapt
