#include "runtime/model/weight_source.h"

#include <cmath>

#include "kernels/core/memory.h"
#include "kernels/uniform.h"

namespace tadapt {
namespace {

/// Fowler, Noll & Vo's hash, 48 bits of it: the same everywhere, as std::hash is not.
std::uint64_t number_of(const std::string& name) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (const char letter : name) hash = (hash ^ static_cast<unsigned char>(letter)) * 0x100000001b3u;
  return hash >> 16;
}

}  // namespace

void FileWeights::read(Context& context, const std::string& name, const Shape& shape, const Use& use) const {
  const Tensor found = files_.tensor(name);
  const auto file = [&] { return files_.file_of(name).path().string(); };
  if (found.shape() != shape)
    throw DataError("{}: tensor {} is {}, config.json makes it {}", file(), name, found.shape(), shape);
  const DType dtype = found.dtype();
  if (dtype != DType::kFloat32 && dtype != DType::kBFloat16 && dtype != DType::kFloat16)
    throw DataError("{}: tensor {} is {}, expected F32, F16 or BF16", file(), name, tadapt::name(dtype));
  use(DeviceView(context, found).tensor());
}

void RandomWeights::read(Context& context, const std::string& name, const Shape& shape, const Use& use) const {
  const Buffer numbers(context.device(), DType::kBFloat16, shape);
  const double row = shape.rank() > 1 ? static_cast<double>(shape[shape.rank() - 1]) : 1.0;
  uniform(context, RandomStream(seed_, RandomPurpose::kTest, 0, number_of(name)),
          static_cast<float>(std::sqrt(3.0 / row)), numbers.tensor().reshaped({shape.elements()}));
  use(numbers.tensor());
}

}  // namespace tadapt
