// Whether the ranks of a job run one program with one configuration, as they must before they exchange anything else.
#pragma once

#include "launcher/process.h"
#include "runtime/comm/communicator.h"
#include "runtime/train/run_options.h"

namespace tadapt {

/// ConfigError by the first rank whose program is not rank 0's, byte for byte, or whose options are not; names what
/// differs. Threads and the number of a GPU may: they are of a rank. Collective.
void require_same_job(const RunOptions& options, Communicator& world, const Process& process);

}  // namespace tadapt
