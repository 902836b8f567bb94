// MachineRates: what one rank of a machine sustains, part by part, for the cost models.
#pragma once

#include <array>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "data/file.h"

namespace tadapt {

/// Work over seconds of the program's own parts, so that what lies between the products is in the rates of the
/// products. The defaults are roughly one CPU core's.
struct MachineRates {
  double flops_per_second = 5e10;          ///< an adapter's dense leaf: 10·T·D·F over all of its time
  double encoder_flops_per_second = 5e10;  ///< a leaf where hardly a feature is active: 2·T·D·F over all of its time
  double pair_flops_per_second = 5e9;      ///< what an active (token, feature) pair adds to that: 8·D
  double forward_flops_per_second = 5e10;  ///< a frozen layer, its attention included
  double backward_flops_per_second = 5e10;
  double head_flops_per_second = 5e10;     ///< head and divergence, forwards and backwards
  double memory_bytes_per_second = 1e10;   ///< AdamW with the packing of its results: 34 bytes a parameter
  double exchange_bytes_per_second = 2e9;  ///< sent by a rank to others of its node
  double network_bytes_per_second = 1e9;   ///< to those of other nodes
  double seconds_per_message = 2e-5;
};

/// Names of the rates, as files have them.
struct NamedRate {
  std::string_view name;
  double MachineRates::* rate;
};
inline constexpr std::array kRates{NamedRate{"adapter_dense_flops", &MachineRates::flops_per_second},
                                   NamedRate{"adapter_encoder_flops", &MachineRates::encoder_flops_per_second},
                                   NamedRate{"adapter_pair_flops", &MachineRates::pair_flops_per_second},
                                   NamedRate{"model_forward_flops", &MachineRates::forward_flops_per_second},
                                   NamedRate{"model_backward_flops", &MachineRates::backward_flops_per_second},
                                   NamedRate{"head_flops", &MachineRates::head_flops_per_second},
                                   NamedRate{"update_bytes", &MachineRates::memory_bytes_per_second},
                                   NamedRate{"exchange_bytes", &MachineRates::exchange_bytes_per_second},
                                   NamedRate{"network_bytes", &MachineRates::network_bytes_per_second},
                                   NamedRate{"message_seconds", &MachineRates::seconds_per_message}};

/// Rates of a file as to_json makes it: all of them, positive. DataError naming file and what is wrong.
MachineRates read_machine_rates(FileSystem& files, const std::filesystem::path& path);
nlohmann::json to_json(const MachineRates& rates);

/// A GPU of this name ("h200") by arithmetic: the maker's figures times shares that are said in the source. Null when
/// it is not in the table.
const MachineRates* built_in_rates(std::string_view name);
/// "a100, b200, h100, h200"
std::string built_in_machines();
/// The one that a device's own name ("NVIDIA H200") is about; empty when none is.
std::string_view built_in_machine_of(std::string_view device);

/// "adapter_dense_flops 1.2e+11, …", per second but for seconds; those that nobody measured as assumed.
std::string describe(const MachineRates& rates);

}  // namespace tadapt
