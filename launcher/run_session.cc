#include "launcher/run_session.h"

#include <unistd.h>

#include <algorithm>

#include "kernels/instruction_set.h"
#include "launcher/same_job.h"
#include "runtime/train/device_choice.h"

namespace tadapt {
namespace {

/// The "Cpus_allowed_list:" line of this process: its affinity mask.
std::string affinity_mask(FileSystem& files) {
  const std::string status = read_text(files, "/proc/self/status");
  const std::size_t begin = status.find("Cpus_allowed_list:");
  return begin == status.npos ? "" : status.substr(begin, status.find('\n', begin) - begin);
}

/// grid.threads, or this rank's part of the cores it shares with the ranks that have the same mask on the same host.
int threads_of(const RunOptions& options, Communicator& world, const Process& process) {
  const std::string mine = process.session.hostname() + " " + affinity_mask(process.files);
  const std::vector<std::string> all = world.all_gather_text(mine, "affinity masks");
  return options.grid.threads > 0 ? options.grid.threads
                                  : threads_per_rank(static_cast<int>(std::ranges::count(all, mine)));
}

/// Makes every rank compute on the lowest instruction set that any of them has, since results differ between sets.
void agree_on_instruction_set(Communicator& world, const Process& process) {
  const std::vector<double> mine = {static_cast<double>(available_instruction_set())};
  const std::vector<double> all = world.all_gather(mine, "instruction sets");
  const auto [lowest, highest] = std::ranges::minmax(all);
  const auto agreed = static_cast<InstructionSet>(static_cast<int>(lowest));
  limit_instruction_set(agreed);
  if (lowest < highest)
    process.announce(fmt::format("not all ranks have {}: all compute on {}",
                                 name(static_cast<InstructionSet>(static_cast<int>(highest))), name(agreed)));
}

Context context_of(const RunOptions& options, Communicator& world, const Process& process) {
  DeviceRequest request;
  parse_device(options.grid.device, request);
  const RankPlace place{.local_rank = process.session.local_rank(), .threads = threads_of(options, world, process)};
  return choose_device(request, place, world, process.announce);
}

std::unique_ptr<Communicator> world_of(const RunOptions& options, const Process& process) {
  std::unique_ptr<Communicator> world = make_communicator(process.session, options.grid.timeout_seconds);
  require_same_job(options, *world, process);
  return world;
}

/// All it takes to find, or to end, who has a directory.
std::string lock_holder(const Process& process) {
  return fmt::format("{}, pid {}{}{}", process.session.who(), ::getpid(), process.job.name.empty() ? "" : ", ",
                     process.job.name);
}

/// Longer than the communicator's bound: that one can name the peer.
double watchdog_seconds(const RunOptions& options) { return 2.0 * options.grid.timeout_seconds + 30.0; }

}  // namespace

RunSession::RunSession(const RunOptions& options, const Process& process)
    : world_(world_of(options, process)),
      context_(context_of(options, *world_, process)),
      watchdog_(process.session.who(), watchdog_seconds(options)),
      files_(process.files, [this](const FileTransfer&) { watchdog_.beat(); }),
      environment_{.files = files_,
                   .world = *world_,
                   .context = context_,
                   .who = lock_holder(process),
                   .print = process.print,
                   .stop_requested = [&process] { return process.signals.requested(); },
                   .heartbeat = [this](const std::string& phase) { watchdog_.beat(phase); }} {
  if (!process.job.name.empty())
    process.announce(fmt::format("{}: {} rank{} on {}", process.job.name, world_->size(),
                                 world_->size() == 1 ? "" : "s", process.job.nodes));
  agree_on_instruction_set(*world_, process);
}

int say_exit(const Process& process, ExitCode code, const std::string& reason, const std::string& facts) {
  process.print(
      fmt::format("tadapt: exit={} reason={}{}{}", static_cast<int>(code), reason, facts.empty() ? "" : " ", facts));
  return static_cast<int>(code);
}

}  // namespace tadapt
