// Which instruction set products run on, and how the ranks of a job come to use the same one.
#pragma once

#include <cstdint>
#include <string>

namespace tadapt {

/// The instruction sets oneDNN tells apart, each a superset of those before it. Products differ in their last bits
/// between them; everything else computes the same bits on all.
enum class InstructionSet : std::uint8_t {
  kGeneric,
  kSse41,
  kAvx,
  kAvx2,
  kAvx512Core,
  kAvx512CoreVnni,
  kAvx512CoreBf16,
  kAvx512CoreAmx,
};

/// The best one that this processor and $ONEDNN_MAX_CPU_ISA permit. AMX does not count where a virtual machine
/// announces it but hides the CPUID leaf that describes its tiles: oneDNN 2.6 then runs into an illegal instruction.
/// Nor does AVX512-bf16 on Intel's processors, where it is slower than fp32 on rounded operands (bench_matmul: 190
/// against 330 GFLOP/s).
InstructionSet available_instruction_set();

/// Holds this process's products to `most`. To be called before the first product; DeviceError when products already
/// run on a better one.
void limit_instruction_set(InstructionSet most);

/// The one that products use, at most the available one. From the first call on it is settled for the process.
InstructionSet effective_instruction_set();

/// oneDNN's name in lower case, as checkpoints record it: "avx512_core_amx", "avx2", …
std::string name(InstructionSet set);

}  // namespace tadapt
