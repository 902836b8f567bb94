// Process: what main hands to every command.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "data/file.h"
#include "runtime/comm/mpi_session.h"
#include "runtime/comm/stop_signals.h"

namespace tadapt {

/// The job a resource manager gave this process, in words; empty outside of one.
struct BatchJob {
  std::string name;   ///< "Slurm job 17, restart 2"
  std::string nodes;  ///< "4 nodes, n[1-4]"
};

struct Process {
  FileSystem& files;
  MpiSession& session;
  const StopSignals& signals;
  std::filesystem::path executable;
  std::filesystem::path current_directory;
  std::string config_variable;  ///< $TADAPT_CONFIG; empty: not set
  BatchJob job = {};
  std::function<void(const std::string& text)> print;     ///< whole lines on standard output, rank 0 only
  std::function<void(const std::string& text)> announce;  ///< whole lines on standard error, rank 0 only
};

/// This process as the operating system describes it.
Process this_process(FileSystem& files, MpiSession& session, const StopSignals& signals);

}  // namespace tadapt
