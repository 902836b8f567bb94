#include "kernels/onednn.h"

#include <cstdlib>

#include "kernels/matmul.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace tadapt {
namespace cpu {
namespace {
bool amx_announced_without_tiles() {
#if defined(__x86_64__)
  constexpr unsigned kAmxTile = 1u << 24;      // leaf 7, EDX
  constexpr unsigned kTileInformation = 0x1d;  // EAX: the highest palette
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & kAmxTile) == 0) return false;
  return __get_cpuid_count(kTileInformation, 0, &a, &b, &c, &d) == 0 || a == 0;
#else
  return false;
#endif
}
}  // namespace

void avoid_unusable_amx() {
  if (std::getenv("ONEDNN_MAX_CPU_ISA") != nullptr || std::getenv("DNNL_MAX_CPU_ISA") != nullptr) return;
  if (!amx_announced_without_tiles()) return;
  // Refused once oneDNN has been used: by then it has been set, unless somebody else came first.
  dnnl::set_max_cpu_isa(dnnl::cpu_isa::avx512_core_bf16);
  if (dnnl::get_effective_cpu_isa() == dnnl::cpu_isa::avx512_core_amx) {
    throw DeviceError("this machine hides its AMX tiles and oneDNN means to use them: set ONEDNN_MAX_CPU_ISA");
  }
}

bool has_bfloat16_products() {
  avoid_unusable_amx();
  const dnnl::cpu_isa isa = dnnl::get_effective_cpu_isa();
  return isa == dnnl::cpu_isa::avx512_core_bf16 || isa == dnnl::cpu_isa::avx512_core_amx;
}

dnnl::memory::data_type onednn_type(DType dtype) {
  require_shape(dtype == DType::kFloat32 || dtype == DType::kBFloat16, "no products in {}", name(dtype));
  return dtype == DType::kFloat32 ? dnnl::memory::data_type::f32 : dnnl::memory::data_type::bf16;
}
}  // namespace cpu

std::string product_library() {
  const dnnl_version_t* version = dnnl_version();
  return fmt::format("oneDNN {}.{}.{}", version->major, version->minor, version->patch);
}

std::string effective_instruction_set() {
  cpu::avoid_unusable_amx();
  switch (dnnl::get_effective_cpu_isa()) {
    case dnnl::cpu_isa::sse41:
      return "sse41";
    case dnnl::cpu_isa::avx:
      return "avx";
    case dnnl::cpu_isa::avx2:
      return "avx2";
    case dnnl::cpu_isa::avx2_vnni:
      return "avx2_vnni";
    case dnnl::cpu_isa::avx512_mic:
      return "avx512_mic";
    case dnnl::cpu_isa::avx512_mic_4ops:
      return "avx512_mic_4ops";
    case dnnl::cpu_isa::avx512_core:
      return "avx512_core";
    case dnnl::cpu_isa::avx512_core_vnni:
      return "avx512_core_vnni";
    case dnnl::cpu_isa::avx512_core_bf16:
      return "avx512_core_bf16";
    case dnnl::cpu_isa::avx512_core_amx:
      return "avx512_core_amx";
    default:
      return "generic";
  }
}

}  // namespace tadapt
