// What our products need of oneDNN: calls that stay on one thread, and its types.
#pragma once

#include <omp.h>

#include <oneapi/dnnl/dnnl.hpp>

#include "kernels/core/tensor.h"

namespace tadapt::cpu {

/// While it lives, oneDNN called from this thread makes and runs primitives for one thread.
class OneThread {
 public:
  OneThread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(before_); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_;
};

/// Whether bf16 operands have instructions of their own here (AVX512-bf16 or AMX).
bool has_bfloat16_products();

/// oneDNN's name for float32 or bfloat16.
dnnl::memory::data_type onednn_type(DType dtype);

}  // namespace tadapt::cpu
