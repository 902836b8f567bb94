#include "runtime/train/metrics.h"

#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

namespace tadapt {
namespace {
using Json = nlohmann::ordered_json;

/// The step a line is of; one that says none belongs to no step that was done.
std::int64_t number_of(const Json& object) {
  const auto step = object.find("step");
  return step != object.end() && step->is_number_integer() ? step->get<std::int64_t>()
                                                           : std::numeric_limits<std::int64_t>::max();
}

/// Every line of a file, one after the other; a last one without a line end included.
class LineReader {
 public:
  LineReader(FileSystem& files, const std::filesystem::path& path) : file_(files.open(path, OpenMode::kRead)) {}

  bool next(std::string& line) {
    line.clear();
    for (;;) {
      const std::size_t end = buffer_.find('\n', place_);
      line.append(buffer_, place_, end - place_);
      if (end != buffer_.npos) {
        place_ = end + 1;
        return true;
      }
      if (!fill()) return !line.empty();
    }
  }

 private:
  bool fill() {
    constexpr std::uint64_t kPieceBytes = 1 << 20;
    buffer_.resize(std::min(kPieceBytes, file_->size() - offset_));
    file_->read(offset_, std::as_writable_bytes(std::span(buffer_)));
    offset_ += buffer_.size();
    place_ = 0;
    return !buffer_.empty();
  }

  std::unique_ptr<File> file_;
  std::uint64_t offset_ = 0;
  std::string buffer_;
  std::size_t place_ = 0;
};

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

TraineeMetrics StepMetrics::mean() const {
  TraineeMetrics sum;
  for (const TraineeMetrics& one : trainees) {
    sum.loss += one.loss;
    sum.nmse += one.nmse;
    sum.l0 += one.l0;
    sum.dead_share += one.dead_share;
    sum.gradient_norm += one.gradient_norm;
  }
  const double count = static_cast<double>(std::max<std::size_t>(1, trainees.size()));
  return {sum.loss / count, sum.nmse / count, sum.l0 / count, sum.dead_share / count, sum.gradient_norm / count};
}

MetricsLog::MetricsLog(FileSystem& files, const std::filesystem::path& run_dir, std::int64_t resume_step,
                       std::int64_t every_steps)
    : missing_steps_(resume_step / every_steps) {
  metrics_ = std::make_unique<Appender>(files, run_dir / kMetricsFile, [&](const Json& object) {
    const std::int64_t step = number_of(object);
    const bool kept = step <= resume_step;
    if (kept && object.contains("trainees") && step % every_steps == 0) --missing_steps_;
    return kept;
  });
  timing_ = std::make_unique<Appender>(files, run_dir / "timing.jsonl", [](const Json&) { return true; });
}

MetricsLog::~MetricsLog() = default;

void MetricsLog::step(const StepMetrics& metrics) {
  Json object = {{"step", metrics.step}, {"learning_rate", metrics.learning_rate}};
  for (std::size_t i = 0; i < metrics.trainees.size(); ++i) {
    const TraineeMetrics& one = metrics.trainees[i];
    object["trainees"][metrics.names[i]] = {{"loss", one.loss},
                                            {"nmse", one.nmse},
                                            {"l0", one.l0},
                                            {"dead_share", one.dead_share},
                                            {"gradient_norm", one.gradient_norm}};
  }
  metrics_->append(object);
}

void MetricsLog::held_out(std::int64_t step, const std::vector<std::string>& names,
                          const std::vector<HeldOutMetrics>& metrics) {
  Json object = {{"step", step}};
  for (std::size_t i = 0; i < metrics.size(); ++i)
    object["held_out"][names[i]] = {{"nmse", metrics[i].nmse}, {"l0", metrics[i].l0}};
  metrics_->append(object);
}

void MetricsLog::timing(const Timing& timing) {
  timing_->append({{"step", timing.step},
                   {"seconds", timing.seconds},
                   {"tokens_per_second", timing.tokens_per_second},
                   {"data_stall_seconds", timing.data_stall_seconds},
                   {"checkpoint_seconds", timing.checkpoint_seconds},
                   {"ranks", timing.ranks}});
}

}  // namespace tadapt
