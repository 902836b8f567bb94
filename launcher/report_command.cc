// `tadapt-dist report`: runs and sweeps as one HTML page.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "launcher/arguments.h"
#include "launcher/commands.h"
#include "launcher/output_file.h"
#include "runtime/plan/estimate.h"
#include "runtime/report/report.h"
#include "runtime/report/tensorboard.h"
#include "runtime/train/metrics.h"
#include "runtime/train/run_directory.h"

namespace tadapt {
namespace {

namespace fs = std::filesystem;
namespace po = boost::program_options;

CommandSyntax syntax() {
  CommandSyntax syntax{
      .usage = "report RUN… [--out FILE] [--tensorboard DIR]",
      .about =
          "Writes one HTML page that needs no network: curves, layers, evaluations, benchmarks, speed, configuration\n"
          "and provenance of runs, several of them side by side. RUN is a run directory, finished or not, or a folder\n"
          "with a sweep.json.",
      .repeated_operand = "RUN"};
  auto add = syntax.flags.add_options();
  add("out", po::value<std::string>()->value_name("FILE"),
      "where the page goes; else report.html in the folder of a single RUN, or in the current one");
  add("tensorboard", po::value<std::string>()->value_name("DIR"),
      "also writes the metrics of each run as an event file of TensorBoard, into a folder of its name in DIR");
  return syntax;
}

}  // namespace

int report_command(const Words& words, const Process& process) {
  const auto arguments = parse_arguments(syntax(), words, process);
  if (!arguments || process.session.rank() != 0) return static_cast<int>(ExitCode::kDone);
  std::vector<fs::path> paths;
  for (const std::string& word : (*arguments)["RUN"].as<std::vector<std::string>>())
    paths.push_back((process.current_directory / word).lexically_normal());
  const std::vector<ReportSubject> subjects = report_subjects(paths);
  const nlohmann::ordered_json data = report_data(process.files, subjects);
  const fs::path out = arguments->count("out") > 0
                           ? process.current_directory / text_of(*arguments, "out")
                           : (paths.size() == 1 ? paths.front() : process.current_directory) / "report.html";
  require_writable(process.files, out);
  const std::string page = report_page(data);
  write_atomically(process.files, out, page);
  process.print(fmt::format("{}: {} runs, {} sweeps, {}", out.string(), data["runs"].size(), data["sweeps"].size(),
                            readable_bytes(static_cast<std::int64_t>(page.size()))));
  if (arguments->count("tensorboard") == 0) return static_cast<int>(ExitCode::kDone);
  for (const ReportSubject& subject : subjects) {
    if (!process.files.exists(subject.path / kRunFile)) continue;
    const fs::path folder =
        process.current_directory / text_of(*arguments, "tensorboard") / fs::path(subject.name).relative_path();
    const std::int64_t scalars = write_tensorboard(process.files, subject.path / kMetricsFile, folder);
    process.print(fmt::format("{}: {} scalars", folder.string(), scalars));
  }
  return static_cast<int>(ExitCode::kDone);
}

}  // namespace tadapt
