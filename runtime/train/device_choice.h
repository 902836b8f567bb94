// Which device the ranks of a run compute on, from grid.device.
#pragma once

#include <functional>
#include <string>

#include "kernels/core/context.h"
#include "runtime/comm/communicator.h"

namespace tadapt {

/// grid.device as written: "auto", "cpu", "cuda" or "cuda:N".
struct DeviceRequest {
  enum class Kind { kAuto, kCpu, kCuda };
  Kind kind = Kind::kAuto;
  int index = -1;  ///< of the GPUs a process sees; -1: by the rank's place on its host
};
/// False when `text` is none of them.
bool parse_device(const std::string& text, DeviceRequest& request);

/// Where a rank stands.
struct RankPlace {
  int local_rank = 0;  ///< among the ranks of its host
  int threads = 1;     ///< of the CPU
};

/// The context of this rank, all ranks on the same kind of device. With "auto" that is a GPU where every rank can use
/// one, else the CPU, and `announce` is told so when some could. A rank takes GPU `index`, or the one it sees, or the
/// one at its place on the host, counted round. ConfigError when a GPU was asked for and cannot be had: never the CPU
/// instead. Collective.
Context choose_device(const DeviceRequest& request, const RankPlace& place, Communicator& world,
                      const std::function<void(const std::string& line)>& announce);

/// How many of the ranks compute on this rank's device; all of them on a CPU's host count as one. Collective.
int ranks_on_device(const Context& context, Communicator& world);

/// ConfigError unless the memory free on a GPU is enough for `bytes` for each of the ranks that share it; `what` names
/// the parts. Nothing on a CPU.
void require_device_memory(const Context& context, int sharing, std::int64_t bytes, const std::string& what);

/// What the numbers of a run depend on besides its options: the CPU's effective instruction set, or the GPU's kind.
std::string arithmetic_of(const Context& context);

}  // namespace tadapt
