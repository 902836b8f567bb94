// Argument checks of the ops: dtype, shape and device of one tensor, in one call.
#pragma once

#include <initializer_list>

#include "kernels/core/context.h"

namespace tadapt {

/// In a list of sizes: any size will do.
inline constexpr std::int64_t kAnySize = -1;

/// Throws ShapeError unless `tensor` lies on the context's device, has one of these dtypes, and these sizes. `what` is
/// "op: argument"; the message names it, what was expected and what was found.
void require_tensor(const Context& context, const char* what, const Tensor& tensor, std::initializer_list<DType> dtypes,
                    std::initializer_list<std::int64_t> sizes);

}  // namespace tadapt
