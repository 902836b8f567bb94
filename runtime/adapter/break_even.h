// Where the sparse route stops paying: a committed table, so that no run times itself.
#pragma once

#include "runtime/adapter/adapter.h"

namespace tadapt {

/// Active features per token below which the sparse route is the faster one: a share of F, by backend and type of the
/// products. The figures come from bench/adapter_step and `tadapt-dist calibrate`; a machine of another kind may set
/// adapter.sparse_below.
double break_even(Device device, const AdapterShape& shape, DType compute);

}  // namespace tadapt
