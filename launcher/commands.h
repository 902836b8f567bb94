// The commands of tadapt-dist. Each takes the words after its name, ends with the exit code, and throws tadapt::Error.
#pragma once

#include <string>
#include <vector>

#include "launcher/process.h"

namespace tadapt {

using Words = std::vector<std::string>;

int train_command(const Words& words, const Process& process);
int capture_command(const Words& words, const Process& process);
int eval_command(const Words& words, const Process& process);
int generate_command(const Words& words, const Process& process);
int benchmark_command(const Words& words, const Process& process);
int features_command(const Words& words, const Process& process);
int features_report_command(const Words& words, const Process& process);
int attribute_command(const Words& words, const Process& process);
int select_command(const Words& words, const Process& process);
int label_command(const Words& words, const Process& process);
int study_command(const Words& words, const Process& process);
int report_command(const Words& words, const Process& process);
int export_command(const Words& words, const Process& process);
int inspect_command(const Words& words, const Process& process);
int verify_command(const Words& words, const Process& process);
int salvage_command(const Words& words, const Process& process);
int init_command(const Words& words, const Process& process);
int calibrate_command(const Words& words, const Process& process);
int sweep_command(const Words& words, const Process& process);

}  // namespace tadapt
