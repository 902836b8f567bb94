#include "kernels/onednn.h"

#include "kernels/instruction_set.h"
#include "kernels/matmul.h"

namespace tadapt {
namespace cpu {

bool has_bfloat16_products() { return effective_instruction_set() >= InstructionSet::kAvx512CoreBf16; }

dnnl::memory::data_type onednn_type(DType dtype) {
  require_shape(dtype == DType::kFloat32 || dtype == DType::kBFloat16, "no products in {}", name(dtype));
  return dtype == DType::kFloat32 ? dnnl::memory::data_type::f32 : dnnl::memory::data_type::bf16;
}

std::string product_library() {
  const dnnl_version_t* version = dnnl_version();
  return fmt::format("oneDNN {}.{}.{}", version->major, version->minor, version->patch);
}

}  // namespace cpu

}  // namespace tadapt
