#include "launcher/same_job.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <span>

#include "data/file.h"
#include "runtime/train/agreement.h"
#include "runtime/train/option_table.h"

namespace tadapt {
namespace {

std::string checksum(std::string_view text) { return fmt::format("{:08x}", crc32c(std::as_bytes(std::span(text)))); }

/// "tadapt 0.1.0, checksum 3fd5a1c0": a version alone would not tell two builds apart.
std::string program(const Process& process) {
  return fmt::format("tadapt {}, checksum {}", TADAPT_VERSION, checksum(read_text(process.files, process.executable)));
}

/// "cuda" of "cuda:1": which of its GPUs is a rank's own affair.
std::string kind_of_device(const std::string& device) { return device.substr(0, device.find(':')); }

nlohmann::json options_of_all_ranks(const RunOptions& options) {
  nlohmann::json all = nlohmann::json::object();
  for (const Option& option : option_table()) {
    if (option.key != "grid.threads") all[option.key] = option.value(options);
  }
  all["grid.device"] = kind_of_device(options.grid.device);
  return all;
}

}  // namespace

void require_same_job(const RunOptions& options, Communicator& world, const Process& process) {
  if (world.size() == 1) return;
  const std::string here = program(process);
  const std::vector<std::string> programs = world.all_gather_text(here, "programs");
  agree(world, [&] {
    if (here != programs.front())
      throw ConfigError("{}: this is {}, on rank 0 it is {}: all ranks need the same build",
                        process.executable.string(), here, programs.front());
  });
  const nlohmann::json mine = options_of_all_ranks(options);
  const std::vector<std::string> checksums = world.all_gather_text(checksum(mine.dump()), "options' checksums");
  if (std::ranges::count(checksums, checksums.front()) == world.size()) return;
  const std::string theirs = world.broadcast_text(mine.dump(), 0, "options");
  agree(world, [&] {
    const auto differing = differing_keys(nlohmann::json::parse(theirs), mine, "rank 0 has {}, this rank {}");
    if (!differing.empty())
      throw ConfigError("the ranks were started with different options: {}", fmt::join(differing, ", "));
  });
}

}  // namespace tadapt
