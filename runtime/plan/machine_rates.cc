#include "runtime/plan/machine_rates.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <nlohmann/json.hpp>

#include "kernels/core/error.h"

namespace tadapt {
namespace {

/// What the maker states: dense bf16 products, memory, one direction of NVLink, one direction of the usual NIC.
struct DataSheet {
  double flops, memory, link, network;
};

/// Nothing of this is measured with this program. A cuBLASLt product of random numbers reaches 0.8 of an H200's sheet,
/// a copy 0.9; the rest is arithmetic: the dense adapter step is 0.86 products, a leaf without active features 0.91; a
/// pair reads and writes about 10·D bytes for its 8·D operations, at 70 % of the memory's rate where the caches do not
/// help; attention makes a layer slower than its products; states and their cotangents travel by way of the host.
MachineRates rates_of(const DataSheet& sheet) {
  const double products = 0.8 * sheet.flops, memory = 0.9 * sheet.memory;
  return {.flops_per_second = 0.86 * products,
          .encoder_flops_per_second = 0.91 * products,
          .pair_flops_per_second = 8.0 / 6.0 * 0.7 * memory,
          .forward_flops_per_second = 0.85 * products,
          .backward_flops_per_second = 0.8 * products,
          .head_flops_per_second = 0.8 * products,
          .memory_bytes_per_second = memory,
          .exchange_bytes_per_second = 0.8 * sheet.link,
          .network_bytes_per_second = 0.8 * sheet.network,
          .seconds_per_message = 1e-5};
}

struct Machine {
  std::string_view name;
  MachineRates rates;
};

const std::array kMachines{Machine{"a100", rates_of({312e12, 2.04e12, 300e9, 25e9})},
                           Machine{"b200", rates_of({2250e12, 8e12, 900e9, 50e9})},
                           Machine{"h100", rates_of({989e12, 3.35e12, 450e9, 50e9})},
                           Machine{"h200", rates_of({989e12, 4.8e12, 450e9, 50e9})}};

}  // namespace

nlohmann::json to_json(const MachineRates& rates) {
  nlohmann::json json;
  for (const NamedRate& one : kRates) json[std::string(one.name)] = rates.*one.rate;
  return json;
}

MachineRates read_machine_rates(FileSystem& files, const std::filesystem::path& path) {
  const auto json = nlohmann::json::parse(read_text(files, path), nullptr, false);
  if (!json.is_object()) throw DataError("{}: expected a JSON object of rates, as calibrate writes it", path.string());
  MachineRates rates;
  for (const NamedRate& one : kRates) {
    const auto found = json.find(one.name);
    const bool ok = found != json.end() && found->is_number() && found->get<double>() > 0;
    if (!ok) throw DataError("{}: expected a number above 0 as {}", path.string(), one.name);
    rates.*one.rate = found->get<double>();
  }
  return rates;
}

const MachineRates* built_in_rates(std::string_view name) {
  const auto found = std::ranges::find(kMachines, name, &Machine::name);
  return found == kMachines.end() ? nullptr : &found->rates;
}

std::string built_in_machines() {
  std::string names;
  for (const Machine& machine : kMachines) names += fmt::format("{}{}", names.empty() ? "" : ", ", machine.name);
  return names;
}

std::string_view built_in_machine_of(std::string_view device) {
  std::string lower(device);
  std::ranges::transform(lower, lower.begin(), [](unsigned char letter) { return std::tolower(letter); });
  for (const Machine& machine : kMachines)
    if (lower.find(machine.name) != lower.npos) return machine.name;
  return {};
}

std::string describe(const MachineRates& rates) {
  const MachineRates assumed;
  std::string text;
  for (const NamedRate& one : kRates)
    text += fmt::format("{}{} {:.3g}{}", text.empty() ? "" : ", ", one.name, rates.*one.rate,
                        rates.*one.rate == assumed.*one.rate ? " (assumed)" : "");
  return text;
}

}  // namespace tadapt
