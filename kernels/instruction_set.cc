#include "kernels/instruction_set.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdlib>
#include <oneapi/dnnl/dnnl.hpp>

#include "kernels/core/error.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace tadapt {
namespace {

struct Entry {
  InstructionSet set;
  const char* name;
  dnnl::cpu_isa isa;
};
constexpr std::array kEntries = {
    Entry{InstructionSet::kGeneric, "generic", dnnl::cpu_isa::all},
    Entry{InstructionSet::kSse41, "sse41", dnnl::cpu_isa::sse41},
    Entry{InstructionSet::kAvx, "avx", dnnl::cpu_isa::avx},
    Entry{InstructionSet::kAvx2, "avx2", dnnl::cpu_isa::avx2},
    Entry{InstructionSet::kAvx512Core, "avx512_core", dnnl::cpu_isa::avx512_core},
    Entry{InstructionSet::kAvx512CoreVnni, "avx512_core_vnni", dnnl::cpu_isa::avx512_core_vnni},
    Entry{InstructionSet::kAvx512CoreBf16, "avx512_core_bf16", dnnl::cpu_isa::avx512_core_bf16},
    Entry{InstructionSet::kAvx512CoreAmx, "avx512_core_amx", dnnl::cpu_isa::avx512_core_amx},
};

const Entry& entry(InstructionSet set) { return kEntries[static_cast<std::size_t>(set)]; }

#if defined(__x86_64__)
bool describes_tiles() {
  constexpr unsigned kTileInformation = 0x1d;  // EAX: the highest palette
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(kTileInformation, 0, &a, &b, &c, &d) != 0 && a != 0;
}

InstructionSet of_processor() {
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("sse4.1")) return InstructionSet::kGeneric;
  if (!__builtin_cpu_supports("avx")) return InstructionSet::kSse41;
  if (!__builtin_cpu_supports("avx2")) return InstructionSet::kAvx;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq"))
    return InstructionSet::kAvx2;
  if (!__builtin_cpu_supports("avx512vnni")) return InstructionSet::kAvx512Core;
  if (!__builtin_cpu_supports("avx512bf16")) return InstructionSet::kAvx512CoreVnni;
  if (!__builtin_cpu_supports("amx-tile") || !__builtin_cpu_supports("amx-int8") ||
      !__builtin_cpu_supports("amx-bf16") || !describes_tiles())
    return __builtin_cpu_is("intel") ? InstructionSet::kAvx512CoreVnni : InstructionSet::kAvx512CoreBf16;
  return InstructionSet::kAvx512CoreAmx;
}
#else
InstructionSet of_processor() { return InstructionSet::kGeneric; }
#endif

/// What the user allows; oneDNN reads the same variables in the same way.
InstructionSet of_environment() {
  for (const char* variable : {"ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"}) {
    const char* value = std::getenv(variable);
    if (value == nullptr) continue;
    std::string wanted = value;
    std::ranges::transform(wanted, wanted.begin(), [](unsigned char letter) { return std::tolower(letter); });
    for (const Entry& one : kEntries) {
      if (wanted == one.name) return one.set;
    }
  }
  return kEntries.back().set;
}

/// oneDNN's own answer, which settles the matter for the process. Sets between ours count as the one below.
InstructionSet in_use() {
  switch (dnnl::get_effective_cpu_isa()) {
    case dnnl::cpu_isa::sse41:
      return InstructionSet::kSse41;
    case dnnl::cpu_isa::avx:
      return InstructionSet::kAvx;
    case dnnl::cpu_isa::avx2:
    case dnnl::cpu_isa::avx2_vnni:
      return InstructionSet::kAvx2;
    case dnnl::cpu_isa::avx512_mic:
    case dnnl::cpu_isa::avx512_mic_4ops:
    case dnnl::cpu_isa::avx512_core:
      return InstructionSet::kAvx512Core;
    case dnnl::cpu_isa::avx512_core_vnni:
      return InstructionSet::kAvx512CoreVnni;
    case dnnl::cpu_isa::avx512_core_bf16:
      return InstructionSet::kAvx512CoreBf16;
    case dnnl::cpu_isa::avx512_core_amx:
      return InstructionSet::kAvx512CoreAmx;
    default:
      return InstructionSet::kGeneric;
  }
}

}  // namespace

InstructionSet available_instruction_set() { return std::min(of_processor(), of_environment()); }

void limit_instruction_set(InstructionSet most) {
  dnnl::set_max_cpu_isa(entry(most).isa);  // without effect once settled, hence the check
  const InstructionSet used = in_use();
  if (used > most)
    throw DeviceError("products already run on {} here, {} was asked for: set ONEDNN_MAX_CPU_ISA={} for all ranks",
                      name(used), name(most), name(most));
}

InstructionSet effective_instruction_set() {
  limit_instruction_set(available_instruction_set());
  return in_use();
}

std::string name(InstructionSet set) { return entry(set).name; }

}  // namespace tadapt
