// A run's metrics as an event file that TensorBoard reads.
#pragma once

#include <cstdint>
#include <filesystem>

#include "data/file.h"

namespace tadapt {

/// Writes DIRECTORY/events.out.tfevents.0000000000.tadapt, making the folder and replacing an earlier one: every figure
/// of every line of `metrics` as a scalar "METRIC/layer-003", "METRIC/all" or "METRIC/mean"; held-out ones begin with
/// "held_out_". They have no wall time, for metrics have none. Figures that are not finite are left out. Returns how
/// many scalars there are.
std::int64_t write_tensorboard(FileSystem& files, const std::filesystem::path& metrics,
                               const std::filesystem::path& directory);

}  // namespace tadapt
