#include "runtime/train/metrics.h"

#include <nlohmann/json.hpp>
#include <sstream>

namespace tadapt {
namespace {
using Json = nlohmann::ordered_json;

/// The lines of `text` that are whole JSON objects with "step" <= last_step.
std::string lines_up_to(const std::string& text, std::int64_t last_step) {
  std::string kept;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const auto object = Json::parse(line, nullptr, false);
    if (object.is_object() && object.value("step", last_step + 1) <= last_step) kept += line + "\n";
  }
  return kept;
}

std::string read_if_there(FileSystem& files, const std::filesystem::path& path) {
  return files.exists(path) ? read_text(files, path) : std::string();
}
}  // namespace

class MetricsLog::Appender {
 public:
  Appender(FileSystem& files, const std::filesystem::path& path, const std::string& content) {
    write_atomically(files, path, content);
    file_ = files.open(path, OpenMode::kReadWrite);
    end_ = file_->size();
  }
  void append(const Json& object) {
    const std::string line = object.dump() + "\n";
    file_->write(end_, std::as_bytes(std::span(line)));
    end_ += line.size();
  }

 private:
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

MetricsLog::MetricsLog(FileSystem& files, const std::filesystem::path& run_dir, std::int64_t resume_step) {
  const auto metrics_path = run_dir / "metrics.jsonl";
  const auto timing_path = run_dir / "timing.jsonl";
  metrics_ =
      std::make_unique<Appender>(files, metrics_path, lines_up_to(read_if_there(files, metrics_path), resume_step));
  timing_ = std::make_unique<Appender>(files, timing_path, read_if_there(files, timing_path));
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
