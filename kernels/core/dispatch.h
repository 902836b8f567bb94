// The one place that knows which devices this build was compiled for.
#pragma once

#include "kernels/core/context.h"

/// Calls cpu::op(args…) or cuda::op(args…) by the device. A device this build lacks is an error, never a fall-back.
#if defined(TADAPT_CUDA)
#define TADAPT_DISPATCH_ON(on, op, ...) \
  return (on) == ::tadapt::Device::kCuda ? cuda::op(__VA_ARGS__) : cpu::op(__VA_ARGS__)
#else
#define TADAPT_DISPATCH_ON(on, op, ...)                                                        \
  do {                                                                                         \
    if ((on) != ::tadapt::Device::kCpu)                                                        \
      throw ::tadapt::DeviceError(#op ": this build has no {} backend", ::tadapt::name((on))); \
    return cpu::op(__VA_ARGS__);                                                               \
  } while (false)
#endif

/// The same by the context's device; the end of each op's checked front in kernels/<op>.cc.
#define TADAPT_DISPATCH(context, op, ...) TADAPT_DISPATCH_ON((context).device(), op, __VA_ARGS__)
