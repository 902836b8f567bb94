#include "kernels/core/check.h"

#include <algorithm>

namespace tadapt {
namespace {
std::string expectation(std::initializer_list<DType> dtypes, std::initializer_list<std::int64_t> sizes) {
  std::string text;
  for (const DType dtype : dtypes) text += (text.empty() ? "" : " or ") + std::string(name(dtype));
  std::string shape;
  for (const std::int64_t size : sizes) {
    shape += (shape.empty() ? "" : ", ") + (size == kAnySize ? std::string("any") : std::to_string(size));
  }
  return text + " [" + shape + "]";
}
}  // namespace

void require_tensor(const Context& context, const char* what, const Tensor& tensor, std::initializer_list<DType> dtypes,
                    std::initializer_list<std::int64_t> sizes) {
  bool ok = std::find(dtypes.begin(), dtypes.end(), tensor.dtype()) != dtypes.end() &&
            tensor.rank() == static_cast<int>(sizes.size());
  for (int i = 0; ok && i < tensor.rank(); ++i) {
    const std::int64_t size = sizes.begin()[i];
    ok = size == kAnySize || size == tensor.size(i);
  }
  if (!ok) {
    throw ShapeError("{}: expected {}, found {} {}", what, expectation(dtypes, sizes), name(tensor.dtype()),
                     tensor.shape());
  }
  require_shape(tensor.device() == context.device(), "{}: expected {} memory, found {}", what, name(context.device()),
                name(tensor.device()));
  require_shape(!tensor.empty() || tensor.elements() == 0, "{}: no memory behind {}", what, tensor.shape());
}

}  // namespace tadapt
