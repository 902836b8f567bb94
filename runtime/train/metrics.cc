#include "runtime/train/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "data/line_reader.h"

namespace tadapt {
namespace {
using Json = nlohmann::ordered_json;

/// The step a line is of; one that says none belongs to no step that was done.
std::int64_t number_of(const Json& object) {
  const auto step = object.find("step");
  return step != object.end() && step->is_number_integer() ? step->get<std::int64_t>()
                                                           : std::numeric_limits<std::int64_t>::max();
}

void add(Json& object, const Figures& figures) {
  for (const auto& [name, value] : figures) object[name] = std::isfinite(value) ? Json(value) : Json(nullptr);
}

/// Means of the figures that all have in common, by place.
Figures means_of(const std::vector<Figures>& all) {
  Figures means;
  if (all.empty()) return means;
  for (std::size_t place = 0; place < all.front().size(); ++place) {
    double sum = 0.0;
    for (const Figures& one : all) sum += one.at(place).second;
    means.emplace_back(all.front()[place].first, sum / static_cast<double>(all.size()));
  }
  return means;
}

/// "residual_nmse" as "residual NMSE".
std::string label(const std::string& name) {
  std::string shown;
  std::istringstream words(name);
  for (std::string word; std::getline(words, word, '_');) {
    if (word == "kl" || word == "nmse" || word == "l0") std::ranges::transform(word, word.begin(), ::toupper);
    shown += (shown.empty() ? "" : " ") + word;
  }
  return shown;
}

std::string shown_as_text(const Figures& figures) {
  std::string text;
  for (const auto& [name, value] : figures)
    text += fmt::format("{}{} {:.{}f}", text.empty() ? "" : ", ", label(name), value, name == "l0" ? 2 : 4);
  return text;
}

}  // namespace

class MetricsLog::Appender {
 public:
  using Keep = std::function<bool(const Json& object)>;

  /// Keeps the objects of an earlier file that `keep` wants, in a new file that then takes its place.
  Appender(FileSystem& files, const std::filesystem::path& path, const Keep& keep) {
    std::filesystem::path temporary = path;
    temporary += ".tmp";
    file_ = files.open(temporary, OpenMode::kCreate);
    if (files.exists(path)) copy(files, path, keep);
    file_->sync();
    files.rename(temporary, path);
    files.sync_directory(path.parent_path());
  }
  void append(const Json& object) { write(object.dump() + "\n"); }
  void sync() { file_->sync(); }

 private:
  void copy(FileSystem& files, const std::filesystem::path& path, const Keep& keep) {
    constexpr std::size_t kPieceBytes = 1 << 20;
    LineReader lines(files, path);
    std::string kept;
    for (std::string line; lines.next(line);) {
      const auto object = Json::parse(line, nullptr, false);
      if (object.is_object() && keep(object)) kept += line + "\n";
      if (kept.size() >= kPieceBytes) write(std::exchange(kept, {}));
    }
    write(kept);
  }
  void write(const std::string& text) {
    file_->write(end_, std::as_bytes(std::span(text)));
    end_ += text.size();
  }

  std::unique_ptr<File> file_;
  std::uint64_t end_ = 0;
};

std::string summary(const std::vector<StepMetrics>& runs) {
  constexpr std::size_t kShown = 3;
  std::vector<Figures> whole, own, counts;
  for (const StepMetrics& run : runs) {
    whole.emplace_back(run.whole.begin(),
                       run.whole.begin() + static_cast<std::ptrdiff_t>(std::min(kShown, run.whole.size())));
    for (const TraineeMetrics& one : run.trainees) {
      own.push_back(one.own);
      counts.push_back({{"l0", one.l0}, {"dead", 100.0 * one.dead_share}});
    }
  }
  Figures shown = whole.empty() || whole.front().empty() ? means_of(own) : means_of(whole);
  const Figures means = means_of(counts);
  shown.push_back(means.at(0));
  return fmt::format("{}, dead {:.1f} %", shown_as_text(shown), means.at(1).second);
}

std::string summary(const std::vector<HeldOutFigures>& runs) {
  std::vector<Figures> whole, own;
  for (const HeldOutFigures& run : runs) {
    whole.push_back(run.whole);
    own.insert(own.end(), run.trainees.begin(), run.trainees.end());
  }
  return shown_as_text(whole.empty() || whole.front().empty() ? means_of(own) : means_of(whole));
}

MetricsLog::MetricsLog(FileSystem& files, const std::filesystem::path& run_dir, std::int64_t resume_step,
                       std::int64_t every_steps)
    : missing_steps_(resume_step / every_steps) {
  metrics_ = std::make_unique<Appender>(files, run_dir / kMetricsFile, [&](const Json& object) {
    const std::int64_t step = number_of(object);
    const bool kept = step <= resume_step;
    if (kept && object.contains("trainees") && step % every_steps == 0) --missing_steps_;
    if (kept && object.contains("held_out")) last_held_out_ = step;
    return kept;
  });
  timing_ = std::make_unique<Appender>(files, run_dir / "timing.jsonl", [](const Json&) { return true; });
}

MetricsLog::~MetricsLog() = default;

void MetricsLog::step(const StepMetrics& metrics) {
  Json object = {{"step", metrics.step}, {"tokens", metrics.tokens}, {"learning_rate", metrics.learning_rate}};
  add(object, metrics.whole);
  if (!metrics.cutoffs.empty()) object["cutoffs"] = metrics.cutoffs;
  for (std::size_t i = 0; i < metrics.trainees.size(); ++i) {
    const TraineeMetrics& one = metrics.trainees[i];
    Json& entry = object["trainees"][metrics.names[i]];
    add(entry, one.own);
    add(entry, {{"l0", one.l0}, {"dead_share", one.dead_share}, {"gradient_norm", one.gradient_norm}});
  }
  metrics_->append(object);
}

void MetricsLog::held_out(std::int64_t step, const HeldOutFigures& figures) {
  Json object = {{"step", step}};
  Json& held_out = object["held_out"];
  add(held_out, figures.whole);
  for (std::size_t i = 0; i < figures.trainees.size(); ++i) add(held_out[figures.names[i]], figures.trainees[i]);
  metrics_->append(object);
}

void MetricsLog::not_finite(std::int64_t step, const std::string& message) {
  metrics_->append({{"step", step}, {"not_finite", message}});
}

void MetricsLog::timing(const Timing& timing) {
  timing_->append({{"step", timing.step},
                   {"seconds", timing.seconds},
                   {"tokens_per_second", timing.tokens_per_second},
                   {"data_stall_seconds", timing.data_stall_seconds},
                   {"exchange_stall_seconds", timing.exchange_stall_seconds},
                   {"checkpoint_seconds", timing.checkpoint_seconds},
                   {"ranks", timing.ranks},
                   {"share", timing.share}});
}

void MetricsLog::sync() {
  metrics_->sync();
  timing_->sync();
}

}  // namespace tadapt
