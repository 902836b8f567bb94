// TADAPT_BACKENDS: how an op declares what each device has of it.
#pragma once

#include "kernels/core/context.h"

/// Declares the functions of an op for every backend: cpu::… in x_cpu.cc, cuda::… in x_cuda.cu.
#define TADAPT_BACKENDS(...) \
  namespace cpu {            \
  __VA_ARGS__                \
  }                          \
  namespace cuda {           \
  __VA_ARGS__                \
  }
