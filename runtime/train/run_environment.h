// What a process brings to a command: files, peers, a device, and how to be heard and stopped.
#pragma once

#include <functional>
#include <string>

#include "data/file.h"
#include "kernels/core/context.h"
#include "runtime/comm/communicator.h"

namespace tadapt {

struct RunEnvironment {
  FileSystem& files;
  Communicator& world;
  Context& context;
  std::string who;                                          ///< "rank 0/8 host, pid 4711, Slurm job 17", for locks
  std::function<void(const std::string& line)> print;       ///< a log line; does nothing but on rank 0
  std::function<bool()> stop_requested;                     ///< a signal came
  std::function<void(const std::string& phase)> heartbeat;  ///< alive, and doing this
};

}  // namespace tadapt
