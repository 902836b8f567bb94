#include "kernels/tiled_product.h"

#include <algorithm>
#include <cstring>

#include "kernels/core/convert.h"
#include "kernels/core/launch.h"

namespace tadapt::cpu {
namespace {
using dnnl::memory;

/// Outputs a panel holds: narrow enough to give every thread work when rows are few, wide enough that a tile is not
/// read over and over.
constexpr std::int64_t kPanelOutputs = 2048;
constexpr std::size_t kAlignment = 64;

std::size_t rounded_up(std::size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

/// Rows per tile. Weights that stay in a core's second-level cache are read again cheaply; others must be used by more
/// rows each time they come.
std::int64_t rows_per_tile(std::int64_t outputs, std::int64_t inputs) {
  constexpr std::int64_t kCachedWeights = 1 << 19;
  return outputs * inputs <= kCachedWeights ? 128 : 192;
}

memory::desc row_major(std::int64_t rows, std::int64_t columns, memory::data_type type) {
  return memory::desc({rows, columns}, type, memory::format_tag::ab);
}

dnnl::primitive_attr attributes(Epilogue epilogue) {
  dnnl::primitive_attr result;
  // The caller's scratchpad: with the library's own, one primitive could not run on several threads at once.
  result.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (epilogue == Epilogue::kRelu) {
    dnnl::post_ops operations;
    operations.append_eltwise(1.0f, dnnl::algorithm::eltwise_relu, 0.0f, 0.0f);
    result.set_post_ops(operations);
  }
  return result;
}
}  // namespace

TiledProduct::TiledProduct(const ProductShape& shape)
    : shape_(shape),
      operand_(has_bfloat16_products() && shape.compute == DType::kBFloat16 ? DType::kBFloat16 : DType::kFloat32),
      tile_rows_(rows_per_tile(shape.outputs, shape.inputs)),
      engine_(dnnl::engine::kind::cpu, 0),
      stream_(engine_) {
  const OneThread one_thread;
  std::size_t offset = 0;
  for (std::int64_t begin = 0; begin < shape.outputs; begin += kPanelOutputs) {
    const std::int64_t width = std::min(kPanelOutputs, shape.outputs - begin);
    if (kernels_.empty() || kernels_.back().width != width) kernels_.push_back(make_kernel(width));
    panels_.push_back({begin, kernels_.size() - 1, offset});
    offset += kernels_.back().packed_bytes;
  }
  zero_bias_.resize(static_cast<std::size_t>(std::min(kPanelOutputs, shape.outputs)));
}

TiledProduct::Kernel TiledProduct::make_kernel(std::int64_t width) const {
  const memory::data_type type = onednn_type(operand_);
  const memory::desc any({shape_.inputs, width}, type, memory::format_tag::any);
  Kernel kernel{.width = width,
                .rows = row_major(tile_rows_, shape_.inputs, type),
                .weights = {},
                .bias = row_major(1, width, memory::data_type::f32),
                .y = row_major(tile_rows_, width, memory::data_type::f32),
                .scratchpad = {},
                .source = {},
                .products = {},
                .reorder = {},
                .packed_bytes = 0};
  const auto describe = [&](const memory::desc& weights, Epilogue epilogue) {
    return dnnl::matmul::primitive_desc({kernel.rows, weights, kernel.bias, kernel.y}, attributes(epilogue), engine_);
  };
  const auto plain = describe(any, Epilogue::kNone);
  kernel.weights = plain.weights_desc();
  const auto with_relu = describe(kernel.weights, Epilogue::kRelu);
  kernel.products = {dnnl::matmul(plain), dnnl::matmul(with_relu)};
  kernel.scratchpad = plain.scratchpad_desc().get_size() < with_relu.scratchpad_desc().get_size()
                          ? with_relu.scratchpad_desc()
                          : plain.scratchpad_desc();
  kernel.source = memory::desc(
      {shape_.inputs, width}, onednn_type(shape_.source),
      shape_.layout == Layout::kOutputInput ? memory::dims{1, shape_.inputs} : memory::dims{shape_.outputs, 1});
  kernel.reorder = dnnl::reorder(dnnl::reorder::primitive_desc(engine_, kernel.source, engine_, kernel.weights));
  kernel.packed_bytes = rounded_up(kernel.weights.get_size());
  return kernel;
}

std::size_t TiledProduct::packed_bytes() const {
  return panels_.back().offset + kernels_[panels_.back().kernel].packed_bytes;
}

void TiledProduct::pack(Context& context, const Tensor& weights, std::byte* packed) const {
  const std::size_t element = bytes_per_element(shape_.source);
  const std::int64_t step = shape_.layout == Layout::kOutputInput ? shape_.inputs : 1;
  parallel_for(context, static_cast<std::int64_t>(panels_.size()), [&](std::int64_t index, int) {
    const OneThread one_thread;
    const Panel& panel = panels_[static_cast<std::size_t>(index)];
    const Kernel& kernel = kernels_[panel.kernel];
    std::byte* source =
        static_cast<std::byte*>(weights.data()) + static_cast<std::size_t>(panel.begin * step) * element;
    memory from(kernel.source, engine_, source);
    memory to(kernel.weights, engine_, packed + panel.offset);
    dnnl::reorder(kernel.reorder).execute(stream_, from, to);
    if (shape_.compute == DType::kBFloat16 && operand_ == DType::kFloat32 && shape_.source == DType::kFloat32) {
      round_to_bfloat16({reinterpret_cast<float*>(packed + panel.offset), kernel.weights.get_size() / sizeof(float)});
    }
  });
}

void TiledProduct::run(Context& context, const Run& run) const {
  const std::int64_t tiles = (run.rows + tile_rows_ - 1) / tile_rows_;
  if (tiles == 0) return;
  // Panels of one tile go to several threads only when tiles alone do not keep them busy: each job loads its tile.
  const auto panels = static_cast<std::int64_t>(panels_.size());
  const std::int64_t wanted = context.threads() == 1 ? 1 : (4 * context.threads() + tiles - 1) / tiles;
  const std::int64_t jobs_per_tile = std::min(panels, wanted);
  parallel_for(context, tiles * jobs_per_tile, [&](std::int64_t job, int thread) {
    const std::int64_t part = job % jobs_per_tile;
    const auto first = static_cast<std::size_t>(panels * part / jobs_per_tile);
    const auto last = static_cast<std::size_t>(panels * (part + 1) / jobs_per_tile);
    run_tile(context, run, job / jobs_per_tile, std::span(panels_).subspan(first, last - first), thread);
  });
}

void TiledProduct::run_tile(Context& context, const Run& run, std::int64_t tile, std::span<const Panel> panels,
                            int thread) const {
  const OneThread one_thread;
  const std::size_t room_bytes =
      rounded_up(static_cast<std::size_t>(tile_rows_ * shape_.inputs) * bytes_per_element(operand_));
  const std::size_t y_bytes = rounded_up(kernels_.front().y.get_size());
  std::size_t scratchpad_bytes = 0;
  for (const Kernel& kernel : kernels_) scratchpad_bytes = std::max(scratchpad_bytes, kernel.scratchpad.get_size());
  auto* scratch = static_cast<std::byte*>(context.scratch(thread, room_bytes + y_bytes + scratchpad_bytes));

  const std::int64_t begin = tile * tile_rows_;
  const std::int64_t count = std::min(tile_rows_, run.rows - begin);
  const bool in_place = count == tile_rows_ && panels_.size() == 1;
  void* rows = const_cast<void*>(run.load(begin, count, scratch));
  for (const Panel& panel : panels) {
    const Kernel& kernel = kernels_[panel.kernel];
    float* target = run.y + begin * shape_.outputs + panel.begin;
    auto* y = in_place ? target : reinterpret_cast<float*>(scratch + room_bytes);
    const float* bias = run.bias == nullptr ? zero_bias_.data() : run.bias + panel.begin;
    kernel.products[static_cast<std::size_t>(run.epilogue)].execute(
        stream_,
        {{DNNL_ARG_SRC, memory(kernel.rows, engine_, rows)},
         {DNNL_ARG_WEIGHTS, memory(kernel.weights, engine_, const_cast<std::byte*>(run.packed + panel.offset))},
         {DNNL_ARG_BIAS, memory(kernel.bias, engine_, const_cast<float*>(bias))},
         {DNNL_ARG_DST, memory(kernel.y, engine_, y)},
         {DNNL_ARG_SCRATCHPAD, memory(kernel.scratchpad, engine_, scratch + room_bytes + y_bytes)}});
    if (in_place) continue;
    for (std::int64_t row = 0; row < count; ++row) {
      std::memcpy(target + row * shape_.outputs, y + row * kernel.width,
                  static_cast<std::size_t>(kernel.width) * sizeof(float));
    }
  }
}

}  // namespace tadapt::cpu
