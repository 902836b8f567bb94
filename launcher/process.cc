#include "launcher/process.h"

#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>

namespace tadapt {
namespace {

auto line_printer(std::FILE* stream, int rank) {
  return [stream, rank](const std::string& text) {
    if (rank != 0) return;
    fmt::print(stream, "{}{}", text, text.ends_with('\n') ? "" : "\n");
    std::fflush(stream);
  };
}

std::string variable(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  return value == nullptr ? "" : value;
}

/// As Slurm says it to the processes of a job; of the step rather than of the whole job, which may have more nodes.
BatchJob slurm_job() {
  const std::string number = variable("SLURM_JOB_ID"), restarts = variable("SLURM_RESTART_COUNT");
  if (number.empty()) return {};
  const char* const unit = std::getenv("SLURM_STEP_NODELIST") == nullptr ? "SLURM_JOB" : "SLURM_STEP";
  const std::string nodes = variable(fmt::format("{}_NUM_NODES", unit));
  return {.name = fmt::format("Slurm job {}{}{}", number, restarts.empty() ? "" : ", restart ", restarts),
          .nodes =
              fmt::format("{} node{}, {}", nodes, nodes == "1" ? "" : "s", variable(fmt::format("{}_NODELIST", unit)))};
}

}  // namespace

Process this_process(FileSystem& files, MpiSession& session, const StopSignals& signals) {
  return {.files = files,
          .session = session,
          .signals = signals,
          .executable = std::filesystem::read_symlink("/proc/self/exe"),
          .current_directory = std::filesystem::current_path(),
          .config_variable = variable("TADAPT_CONFIG"),
          .job = slurm_job(),
          .print = line_printer(stdout, session.rank()),
          .announce = line_printer(stderr, session.rank())};
}

}  // namespace tadapt
