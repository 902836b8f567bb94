#include "kernels/attention_backward.h"
#include "kernels/attention_backward_bfloat16.cuh"
#include "kernels/attention_backward_float32.cuh"

namespace tadapt::cuda {
namespace {

struct Call {
  const AttentionInput& input;
  const AttentionResult& result;
  Linearisation linearisation;
  const AttentionGradient& gradient;
  AttentionSizes sizes;
  std::span<const std::int32_t> offsets() const { return input.offsets.span<std::int32_t>(); }
  bool exact() const { return linearisation == Linearisation::kExact; }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(sizes.size)); }
  std::int64_t rows() const { return input.query.size(0) * sizes.heads; }
};

/// With cotangents rounded to T.
template <class T>
void start_deltas(Context& context, const Call& call, float* deltas) {
  constexpr int kDeltaThreads = 256;
  if (!call.exact()) return;
  launch(context, "causal_attention", {blocks_for(call.rows(), kDeltaThreads / kWarp), kDeltaThreads}, take_deltas<T>,
         numbers<const float>(call.result.out), numbers<const float>(call.result.cotangent), call.rows(),
         call.sizes.size, deltas);
}

template <int kHeadSize>
void start_float32(Context& context, const Call& call) {
  auto* deltas = static_cast<float*>(context.scratch(0, static_cast<std::size_t>(call.rows()) * sizeof(float)));
  start_deltas<float>(context, call, deltas);
  const Float32Backward in{.query = numbers<const float>(call.input.query),
                           .key = numbers<const float>(call.input.key),
                           .value = numbers<const float>(call.input.value),
                           .cotangent = numbers<const float>(call.result.cotangent),
                           .log_sums = numbers<const float>(call.result.log_sums),
                           .deltas = deltas,
                           .query_gradient = numbers<float>(call.gradient.query),
                           .key_gradient = numbers<float>(call.gradient.key),
                           .value_gradient = numbers<float>(call.gradient.value),
                           .sizes = call.sizes,
                           .scale = call.scale()};
  const Grid grid{0, kGradientThreads, SharedTiles::bytes(call.sizes.size)};
  launch_tiles(context, grid, key_tiles(call.offsets(), kRows), call.sizes.groups, key_gradients_float32<kHeadSize>,
               in);
  if (call.exact())
    launch_tiles(context, grid, query_tiles(call.offsets(), kRows), call.sizes.heads,
                 query_gradients_float32<kHeadSize>, in);
}

template <class T>
void start_bfloat16(Context& context, const Call& call) {
  const std::int64_t padded = padded_size(call.sizes.size), query_elements = call.rows() * padded,
                     key_elements = call.input.key.size(0) * call.sizes.groups * padded;
  const auto bytes = static_cast<std::size_t>(2 * (query_elements + key_elements)) * sizeof(bfloat16);
  auto* next =
      static_cast<bfloat16*>(context.scratch(0, bytes + static_cast<std::size_t>(call.rows()) * sizeof(float)));
  auto* deltas = reinterpret_cast<float*>(next + 2 * (query_elements + key_elements));
  start_deltas<bfloat16>(context, call, deltas);
  const Bfloat16Rows query = round_rows(context, call.input.query, next);
  const Bfloat16Rows cotangent = round_rows(context, call.result.cotangent, next + query_elements);
  const Bfloat16Rows key = round_rows(context, call.input.key, next + 2 * query_elements);
  const Bfloat16Rows value = round_rows(context, call.input.value, next + 2 * query_elements + key_elements);
  const Bfloat16Backward in{.query = query,
                            .cotangent = cotangent,
                            .key = key,
                            .value = value,
                            .log_sums = numbers<const float>(call.result.log_sums),
                            .deltas = deltas,
                            .query_gradient = numbers<float>(call.gradient.query),
                            .key_gradient = numbers<float>(call.gradient.key),
                            .value_gradient = numbers<float>(call.gradient.value),
                            .sizes = call.sizes,
                            .scale = call.scale()};
  const Grid grid{0, T::kThreads, T::kSharedBytes};
  const std::vector<KeyTile> keys = key_tiles(call.offsets(), T::kRows);
  const int each = call.sizes.groups * T::kParts;
  if (!call.exact())
    return launch_tiles(context, grid, keys, each, key_gradients_bfloat16<T, Linearisation::kRelp>, in);
  launch_tiles(context, grid, keys, each, key_gradients_bfloat16<T, Linearisation::kExact>, in);
  launch_tiles(context, grid, query_tiles(call.offsets(), T::kRows), call.sizes.heads * T::kParts,
               query_gradients_bfloat16<T>, in);
}

}  // namespace

void causal_attention_backward(Context& context, const AttentionInput& input, const AttentionResult& result,
                               Linearisation linearisation, const AttentionGradient& gradient) {
  const AttentionSizes sizes{static_cast<int>(input.query.size(1)), static_cast<int>(input.key.size(1)),
                             static_cast<int>(input.query.size(2))};
  require_shape(sizes.size <= kMostHeadSize, "causal_attention_backward: head size {}, at most {} on a GPU", sizes.size,
                kMostHeadSize);
  const Call call{input, result, linearisation, gradient, sizes};
  require_sequences(call.offsets(), input.query.size(0));
  if (input.query.elements() == 0) return;
  const auto start = [&](auto float32, auto bfloat16) {
    (input.compute == DType::kFloat32 ? float32 : bfloat16)(context, call);
  };
  if (sizes.size <= 64) return start(&start_float32<64>, &start_bfloat16<BackwardTiling<64>>);
  if (sizes.size <= 128) return start(&start_float32<128>, &start_bfloat16<BackwardTiling<128>>);
  start(&start_float32<kMostHeadSize>, &start_bfloat16<BackwardTiling<kMostHeadSize>>);
}

}  // namespace tadapt::cuda
