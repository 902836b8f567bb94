#include <cstring>
#include <map>
#include <optional>

#include "kernels/core/convert.h"
#include "kernels/core/launch.h"
#include "kernels/matmul.h"
#include "kernels/onednn.h"
#include "kernels/tiled_product.h"

namespace tadapt {

namespace cpu {
namespace {

/// A product and its packed weights.
struct Direction {
  TiledProduct product;
  Buffer packed;
};
struct Weights : PackedWeights::Impl {
  TiledProduct product;
  std::optional<Direction> backward;
  explicit Weights(TiledProduct tiled) : product(std::move(tiled)) {}
};
const Weights& of(const PackedWeights& packed) { return static_cast<const Weights&>(packed.impl()); }

/// What weight_gradient keeps in a context: the products of the shapes seen, and room for one packed right operand.
struct GradientProducts {
  static constexpr std::size_t kMost = 64;  ///< leaves of many lengths must not pile up

  std::map<ProductShape, TiledProduct> products;
  Buffer packed;

  const TiledProduct& of(const ProductShape& shape) {
    if (const auto found = products.find(shape); found != products.end()) return found->second;
    if (products.size() == kMost) products.clear();
    return products.emplace(shape, TiledProduct(shape)).first->second;
  }
};

std::byte* bytes_of(const Buffer& buffer) { return static_cast<std::byte*>(buffer.data()); }
}  // namespace

PackedWeights pack_weights(Context& context, const Tensor& weights, Layout layout, DType compute,
                           Directions directions) {
  const bool by_output = layout == Layout::kOutputInput;
  const ProductShape shape{.outputs = weights.size(by_output ? 0 : 1),
                           .inputs = weights.size(by_output ? 1 : 0),
                           .compute = compute,
                           .layout = layout,
                           .source = weights.dtype() == DType::kFloat16 ? DType::kFloat32 : weights.dtype()};
  TiledProduct product(shape);
  Buffer packed(context.device(), product.packed_bytes());
  auto impl = std::make_unique<Weights>(std::move(product));
  impl->outputs = shape.outputs;
  impl->inputs = shape.inputs;
  impl->compute = compute;
  impl->given = weights.dtype();  // float16 is packed by way of float32
  impl->layout = layout;
  impl->directions = directions;
  impl->packed = std::move(packed);
  if (directions == Directions::kBoth) {
    TiledProduct backward({.outputs = shape.inputs,
                           .inputs = shape.outputs,
                           .compute = compute,
                           .layout = by_output ? Layout::kInputOutput : Layout::kOutputInput,
                           .source = shape.source});
    Buffer room(context.device(), backward.packed_bytes());
    impl->backward = Direction{std::move(backward), std::move(room)};
  }
  PackedWeights result(std::move(impl));
  cpu::repack_weights(context, weights, result);
  return result;
}

void repack_weights(Context& context, const Tensor& weights, PackedWeights& packed) {
  const Weights& impl = of(packed);
  Buffer widened;
  Tensor source = weights;
  if (impl.given == DType::kFloat16) {
    widened = Buffer(context.device(), DType::kFloat32, weights.shape());
    source = widened.tensor();
    convert_elements(weights, source);
  }
  impl.product.pack(context, source, bytes_of(impl.packed));
  if (impl.backward) impl.backward->product.pack(context, source, bytes_of(impl.backward->packed));
}

void matmul(Context& context, const Tensor& x, const PackedWeights& weights, const Tensor& bias, Epilogue epilogue,
            const Tensor& y) {
  const Weights& impl = of(weights);
  impl.product.run(context, {.rows = x.size(0),
                             .load = [&](std::int64_t begin, std::int64_t count,
                                         void* room) { return load_row_tile(impl.product, x, begin, count, room); },
                             .packed = bytes_of(impl.packed),
                             .bias = bias.empty() ? nullptr : bias.span<float>().data(),
                             .epilogue = epilogue,
                             .y = y.span<float>().data()});
}

void matmul_backward(Context& context, const Tensor& cotangent, const PackedWeights& weights, const Tensor& gradient) {
  const auto& [product, packed] = *of(weights).backward;
  product.run(context, {.rows = cotangent.size(0),
                        .load = [&](std::int64_t begin, std::int64_t count,
                                    void* room) { return load_row_tile(product, cotangent, begin, count, room); },
                        .packed = bytes_of(packed),
                        .bias = nullptr,
                        .epilogue = Epilogue::kNone,
                        .y = gradient.span<float>().data()});
}

void weight_gradient(Context& context, const Tensor& left, const Tensor& right, DType compute, const Tensor& gradient) {
  if (gradient.elements() == 0) return;
  if (left.size(0) == 0) {
    std::memset(gradient.data(), 0, gradient.bytes());
    return;
  }
  // The tokens are what is summed over: a product whose rows are left's columns, its weights right's.
  auto& kept = context.state<GradientProducts>();
  const TiledProduct& product = kept.of({.outputs = right.size(1),
                                         .inputs = right.size(0),
                                         .compute = compute,
                                         .layout = Layout::kInputOutput,
                                         .source = right.dtype()});
  if (kept.packed.bytes() < product.packed_bytes()) kept.packed = Buffer(context.device(), product.packed_bytes());
  product.pack(context, right, bytes_of(kept.packed));
  product.run(context, {.rows = left.size(1),
                        .load = [&](std::int64_t begin, std::int64_t count,
                                    void* room) { return load_column_tile(product, left, begin, count, room); },
                        .packed = bytes_of(kept.packed),
                        .bias = nullptr,
                        .epilogue = Epilogue::kNone,
                        .y = gradient.span<float>().data()});
}

}  // namespace cpu
std::size_t packed_bytes_per_number(Device device, DType compute, Directions directions) {
  const bool narrow = compute == DType::kBFloat16 && (device != Device::kCpu || cpu::has_bfloat16_products());
  const std::size_t copies = directions == Directions::kBoth && device == Device::kCpu ? 2 : 1;
  return copies * bytes_per_element(narrow ? DType::kBFloat16 : DType::kFloat32);
}

}  // namespace tadapt
