// The one place that knows which devices this build was compiled for.
#pragma once

#include "kernels/core/context.h"

/// Calls cpu::op(args…) or cuda::op(args…) by the context's device. Used at the end of each op's checked front in
/// kernels/<op>.h; a device this build lacks is an error, never a fall-back.
#if defined(TADAPT_CUDA)
#define TADAPT_DISPATCH(context, op, ...) \
  return (context).device() == ::tadapt::Device::kCuda ? cuda::op(__VA_ARGS__) : cpu::op(__VA_ARGS__)
#else
#define TADAPT_DISPATCH(context, op, ...)                                                                    \
  do {                                                                                                       \
    if ((context).device() != ::tadapt::Device::kCpu)                                                        \
      throw ::tadapt::DeviceError(#op ": this build has no {} backend", ::tadapt::name((context).device())); \
    return cpu::op(__VA_ARGS__);                                                                             \
  } while (false)
#endif
