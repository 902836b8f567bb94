#include "runtime/adapter/break_even.h"

#include <array>

namespace tadapt {
namespace {

/// Both routes cost about as much where the products that the dense one adds (8·D·F per token) meet the rows that the
/// sparse one touches (4·D per active pair): a share of F that depends on the machine's rates alone.
struct Row {
  Device device;
  DType compute;
  double share;
};
constexpr std::array kRows = {
    Row{Device::kCpu, DType::kBFloat16, 0.12},
    Row{Device::kCpu, DType::kFloat32, 0.11},
    // By arithmetic, not measured: 433 ns a dense token at D 3584, F 8192 against 82 ns and 5 ns a pair, with gathers
    // at 70 % of the memory's bandwidth.
    Row{Device::kCuda, DType::kBFloat16, 0.006},
    Row{Device::kCuda, DType::kFloat32, 0.06},
};

}  // namespace

double break_even(Device device, const AdapterShape& shape, DType compute) {
  for (const Row& row : kRows)
    if (row.device == device && row.compute == compute) return row.share * static_cast<double>(shape.features);
  return 0.0;
}

}  // namespace tadapt
