// The command line of tadapt-dist: which command runs.
#pragma once

#include "launcher/commands.h"

namespace tadapt {

/// Runs the command that the words (without the program's name) ask for; no command means train. ConfigError naming the
/// nearest command when there is none of that name.
int run_cli(const Words& words, const Process& process);

}  // namespace tadapt
