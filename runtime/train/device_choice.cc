#include "runtime/train/device_choice.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <utility>

#include "kernels/core/memory.h"
#include "kernels/instruction_set.h"
#include "runtime/comm/mpi_session.h"

namespace tadapt {
namespace {

constexpr char kCuda[] = "cuda";

/// The context on the GPU that this rank is to take, or why it cannot have it.
struct Trial {
  std::optional<Context> context;
  std::string reason;
};

Trial try_gpu(int index, const RankPlace& place) {
  try {
    const int gpus = device_count(Device::kCuda);
    if (gpus == 0) return {.context = {}, .reason = "no GPU is visible"};
    return {.context = Context::cuda(index >= 0 ? index : place.local_rank % gpus, place.threads), .reason = {}};
  } catch (const DeviceError& error) {
    return {.context = {}, .reason = error.what()};
  }
}

}  // namespace

bool parse_device(const std::string& text, DeviceRequest& request) {
  constexpr std::array kWords{std::pair{"auto", DeviceRequest::Kind::kAuto},
                              std::pair{"cpu", DeviceRequest::Kind::kCpu},
                              std::pair{kCuda, DeviceRequest::Kind::kCuda}};
  for (const auto& [word, kind] : kWords) {
    if (text != word) continue;
    request = {.kind = kind};
    return true;
  }
  const std::string prefix = std::string(kCuda) + ":";
  int index = -1;
  if (!text.starts_with(prefix)) return false;
  const auto [end, error] = std::from_chars(text.data() + prefix.size(), text.data() + text.size(), index);
  if (error != std::errc() || end != text.data() + text.size() || index < 0) return false;
  request = {.kind = DeviceRequest::Kind::kCuda, .index = index};
  return true;
}

Context choose_device(const DeviceRequest& request, const RankPlace& place, Communicator& world,
                      const std::function<void(const std::string& line)>& announce) {
  if (request.kind == DeviceRequest::Kind::kCpu) return Context::cpu(place.threads);
  Trial gpu = try_gpu(request.index, place);
  if (request.kind == DeviceRequest::Kind::kAuto) {
    const double mine = gpu.context ? 1.0 : 0.0;
    const std::vector<double> all = world.all_gather(std::span(&mine, 1), "GPUs that ranks can use");
    const auto usable = std::ranges::count(all, 1.0);
    if (usable > 0 && usable < world.size())
      announce(fmt::format("{} of {} ranks can use a GPU: all compute on the CPU (grid.device: auto)", usable,
                           world.size()));
    if (usable < world.size()) return Context::cpu(place.threads);
  }
  if (!gpu.context) throw ConfigError("grid.device {}: {}", kCuda, gpu.reason);
  return std::move(*gpu.context);
}

int ranks_on_device(const Context& context, Communicator& world) {
  if (context.device() == Device::kCpu) return 1;
  const std::string mine = device_address(context.device()) + " of " + host_name();
  return static_cast<int>(std::ranges::count(world.all_gather_text(mine, "devices of all ranks"), mine));
}

void require_device_memory(const Context& context, int sharing, std::int64_t bytes, const std::string& what) {
  if (context.device() == Device::kCpu) return;
  const DeviceMemory memory = device_memory(context.device());
  if (static_cast<std::size_t>(bytes) * static_cast<std::size_t>(sharing) <= memory.free) return;
  throw ConfigError("GPU memory: {} rank{} on one GPU need{} about {} bytes each ({}), {} of {} are free", sharing,
                    sharing == 1 ? "" : "s", sharing == 1 ? "s" : "", bytes, what, memory.free, memory.total);
}

std::string arithmetic_of(const Context& context) {
  if (context.device() == Device::kCpu) return name(effective_instruction_set());
  return device_kind(context.device());
}

}  // namespace tadapt
