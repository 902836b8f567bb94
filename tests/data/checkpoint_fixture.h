// Checkpoints whose whole content follows from their step, so that a test can tell whether one loaded is whole.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "data/checkpoint.h"

namespace tadapt::testing {

inline const std::filesystem::path kRunDirectory = "/runs/one";

struct ExamplePart {
  std::vector<float> weights, moments;
  std::vector<std::int64_t> last_active;

  ExamplePart(std::int64_t step, int layer) : weights(700), moments(700), last_active(33) {
    std::iota(weights.begin(), weights.end(), static_cast<float>(step) + 0.25f * static_cast<float>(layer));
    std::iota(moments.begin(), moments.end(), static_cast<float>(-step * (layer + 1)));
    std::iota(last_active.begin(), last_active.end(), step * 1000 + layer);
  }
  NamedTensors adapter() { return {{"W_enc", Tensor::of(std::span(weights), {70, 10})}}; }
  NamedTensors optimizer() {
    return {{"W_enc.first_moment", Tensor::of(std::span(moments), {70, 10})},
            {"last_active", Tensor::of(std::span(last_active), {33})},
            {"none", Tensor(nullptr, DType::kFloat32, {0})}};
  }
};

inline nlohmann::json example_state(std::int64_t step) { return {{"samples", step * 64}, {"seed", 7}}; }

/// All parts of a step, written by as many writers as there are layers (as ranks would) with records sent as text.
inline std::vector<PartRecord> write_example_parts(FileSystem& files, std::int64_t step) {
  std::vector<PartRecord> records;
  for (int layer = 0; layer < 2; ++layer) {
    CheckpointWriter writer(files, kRunDirectory, step);
    ExamplePart part(step, layer);
    const std::string name = "layer-00" + std::to_string(layer);
    for (const PartRecord& record : {writer.write_part(name + ".safetensors", part.adapter(), {{"kind", "adapter"}}),
                                     writer.write_part(name + ".optimizer.safetensors", part.optimizer())}) {
      records.push_back(PartRecord::from_json(record.to_json()));
    }
  }
  return records;
}

enum class Progress { kWriting, kCommitted, kPruned };

/// A whole save; `progress` tells how far it came when something is thrown.
inline void save_example(FileSystem& files, std::int64_t step, int keep, Progress& progress) {
  progress = Progress::kWriting;
  CheckpointWriter writer(files, kRunDirectory, step);
  writer.prepare();
  writer.commit(write_example_parts(files, step), example_state(step));
  progress = Progress::kCommitted;
  writer.prune(keep);
  progress = Progress::kPruned;
}

inline void save_example(FileSystem& files, std::int64_t step, int keep = 2) {
  Progress progress{};
  save_example(files, step, keep, progress);
}

inline bool same_tensors(const CheckpointPart& part, const NamedTensors& expected) {
  if (part.tensors.size() != expected.size()) return false;
  for (const auto& [name, tensor] : expected) {
    const auto found = part.tensors.find(name);
    if (found == part.tensors.end()) return false;
    const Tensor read = found->second.tensor();
    if (read.dtype() != tensor.dtype() || read.shape() != tensor.shape()) return false;
    if (tensor.bytes() > 0 && std::memcmp(read.data(), tensor.data(), tensor.bytes()) != 0) return false;
  }
  return true;
}

/// Whether a found checkpoint holds, bit for bit, what save_example wrote for its step.
inline bool is_whole_example(FileSystem& files, const CheckpointInfo& info) {
  if (info.state != example_state(info.step) || info.parts.size() != 4) return false;
  for (int layer = 0; layer < 2; ++layer) {
    ExamplePart part(info.step, layer);
    const std::string name = "layer-00" + std::to_string(layer);
    if (!same_tensors(read_part(files, info, name + ".safetensors"), part.adapter())) return false;
    if (!same_tensors(read_part(files, info, name + ".optimizer.safetensors"), part.optimizer())) return false;
  }
  return true;
}

/// The step of the checkpoint that loads, when it is whole; -1 when none loads, -2 when it is not whole, -3 when some
/// checkpoint under a final name is damaged (only damage from outside may do that).
inline std::int64_t loadable_step(FileSystem& files) {
  try {
    for (const auto& path : list_checkpoints(files, kRunDirectory)) verify_checkpoint(files, path);
  } catch (const Error&) {
    return -3;
  }
  const auto info = find_checkpoint(files, kRunDirectory, [](const auto&, const auto&) {});
  if (!info) return -1;
  return is_whole_example(files, *info) ? info->step : -2;
}

}  // namespace tadapt::testing
