// RunSession: peers, device and watchdog of a command that computes, made once its options are known.
#pragma once

#include <memory>

#include "data/observed_files.h"
#include "kernels/core/context.h"
#include "launcher/process.h"
#include "runtime/comm/communicator.h"
#include "runtime/comm/watchdog.h"
#include "runtime/train/run_environment.h"
#include "runtime/train/run_options.h"

namespace tadapt {

class RunSession {
 public:
  /// Collective. The process must outlive the session.
  RunSession(const RunOptions& options, const Process& process);

  const RunEnvironment& environment() const { return environment_; }

 private:
  std::unique_ptr<Communicator> world_;
  Context context_;
  Watchdog watchdog_;
  ObservedFileSystem files_;  // a long phase that reads or writes is alive
  RunEnvironment environment_;
};

/// The last line of a command and its exit code; `facts` are more "key=value", or empty.
int say_exit(const Process& process, ExitCode code, const std::string& reason, const std::string& facts);

}  // namespace tadapt
