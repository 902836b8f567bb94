// What benchmarks on random models share: weights that are kept to be written, and the process's peak memory.
#pragma once

#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "data/safetensors.h"
#include "kernels/core/memory.h"
#include "runtime/model/weight_source.h"

namespace tadapt {

/// Random weights, kept as they are read so that they can be written.
class KeptWeights : public WeightSource {
 public:
  explicit KeptWeights(std::uint64_t seed) : random_(seed) {}
  void read(Context& context, const std::string& name, const Shape& shape, const Use& use) const override {
    random_.read(context, name, shape, [&](const Tensor& numbers) {
      Buffer& kept = kept_[name] = Buffer(Device::kCpu, numbers.dtype(), shape);
      copy(context, numbers, kept.tensor());
      use(numbers);
    });
  }
  void write(const std::filesystem::path& path) const {
    NamedTensors tensors;
    for (const auto& [name, buffer] : kept_) tensors[name] = buffer.tensor();
    RealFileSystem files;
    write_safetensors(files, path, tensors);
  }
  void forget() { kept_.clear(); }

 private:
  RandomWeights random_;
  mutable std::map<std::string, Buffer> kept_;
};

/// Peak resident memory of this process since the last forget_peak(), in MB.
inline double peak_mb() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return std::stod(line.substr(6)) / 1024;
  return 0.0;
}
inline void forget_peak() { std::ofstream("/proc/self/clear_refs") << "5"; }

}  // namespace tadapt
