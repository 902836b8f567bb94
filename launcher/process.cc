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

}  // namespace

Process this_process(FileSystem& files, MpiSession& session, const StopSignals& signals) {
  const char* config = std::getenv("TADAPT_CONFIG");
  return {.files = files,
          .session = session,
          .signals = signals,
          .executable = std::filesystem::read_symlink("/proc/self/exe"),
          .current_directory = std::filesystem::current_path(),
          .config_variable = config == nullptr ? "" : config,
          .print = line_printer(stdout, session.rank()),
          .announce = line_printer(stderr, session.rank())};
}

}  // namespace tadapt
