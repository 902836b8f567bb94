#include "kernels/core/elementwise.cuh"
#include "kernels/features.h"

namespace tadapt::cuda {
namespace {

/// With up to 32 registers a thread, as all kernels here on sm_90, 8 blocks fill an SM.
constexpr int kThreads = 256;
/// Tokens whose column sums one block makes; the parts are then joined first to last.
constexpr std::int64_t kPartTokens = 256;

/// A block a feature; reads 4 bytes a number.
__global__ void __launch_bounds__(kThreads) norm_of_row(const float* decoder, std::int64_t width, float* norms) {
  __shared__ double room[kThreads / kWarp];
  const float* row = decoder + blockIdx.x * width;
  double squares = 0;
  for (std::int64_t d = threadIdx.x; d < width; d += kThreads) squares += static_cast<double>(row[d]) * row[d];
  squares = block_sum(squares, room);
  if (threadIdx.x == 0) norms[blockIdx.x] = static_cast<float>(sqrt(squares));
}

/// One block: there are few features, and one place for their sum. 8 bytes a feature.
__global__ void __launch_bounds__(kThreads)
    weigh(const float* sums, const float* norms, std::int64_t n, double* total) {
  __shared__ double room[kThreads / kWarp];
  double weighted = 0;
  for (std::int64_t i = threadIdx.x; i < n; i += kThreads) weighted += static_cast<double>(sums[i]) * norms[i];
  weighted = block_sum(weighted, room);
  if (threadIdx.x == 0) *total = weighted;
}

/// A block a token; reads 8 and writes 4 bytes a number, norms from cache.
__global__ void __launch_bounds__(kThreads)
    gradient_of_row(const float* activations, const float* norms, FeatureGradient formula, std::int64_t features,
                    float* gradient) {
  const std::int64_t row = blockIdx.x * features;
  for (std::int64_t i = threadIdx.x; i < features; i += kThreads)
    gradient[row + i] = formula(activations[row + i], norms[i], gradient[row + i]);
}

/// A block a feature; reads 8 and writes 4 bytes a number, none for a feature that is never active.
__global__ void __launch_bounds__(kThreads) add_sparsity(const float* sums, const float* decoder, const float* norms,
                                                         float coefficient, std::int64_t width, float* gradient) {
  const std::int64_t i = blockIdx.x;
  if (!(norms[i] > 0.0f) || sums[i] == 0.0f) return;
  const float factor = coefficient * sums[i] / norms[i];
  for (std::int64_t d = threadIdx.x; d < width; d += kThreads)
    gradient[i * width + d] += factor * decoder[i * width + d];
}

/// parts [parts, n]: sums of `value` over kPartTokens tokens each. Blocks lie first along columns, then along parts.
/// Reads each number once; parts are 1 / kPartTokens of them.
template <class Sum, class T, class Value>
__global__ void __launch_bounds__(kThreads)
    sum_parts(const T* x, std::int64_t tokens, std::int64_t n, std::int64_t column_blocks, Value value, Sum* parts) {
  const std::int64_t part = blockIdx.x / column_blocks;
  const std::int64_t column = blockIdx.x % column_blocks * kThreads + threadIdx.x;
  if (column >= n) return;
  const std::int64_t end = min(tokens, (part + 1) * kPartTokens);
  Sum sum = 0;
  for (std::int64_t t = part * kPartTokens; t < end; ++t) sum += value(x[t * n + column]);
  parts[part * n + column] = sum;
}
template <class Sum>
__global__ void __launch_bounds__(kThreads)
    join_parts(const Sum* parts, std::int64_t count, std::int64_t n, float* sums) {
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (column >= n) return;
  Sum sum = 0;
  for (std::int64_t part = 0; part < count; ++part) sum += parts[part * n + column];
  sums[column] = static_cast<float>(sum);
}

template <class Sum, class T, class Value>
void sum_columns(Context& context, const char* op, const Tensor& x, const Tensor& sums, Value value) {
  const std::int64_t n = x.size(1), parts = blocks_for(x.size(0), kPartTokens);
  const std::int64_t column_blocks = blocks_for(n, kThreads);
  auto* partial = static_cast<Sum*>(context.scratch(0, static_cast<std::size_t>(parts * n) * sizeof(Sum)));
  launch(context, op, {parts * column_blocks, kThreads}, sum_parts<Sum, T, Value>, numbers<const T>(x), x.size(0), n,
         column_blocks, value, partial);
  launch(context, op, {column_blocks, kThreads}, join_parts<Sum>, partial, parts, n, numbers<float>(sums));
}

struct Itself {
  template <class T>
  __device__ double operator()(T number) const {
    return static_cast<double>(static_cast<float>(number));
  }
};
struct IsActive {
  __device__ int operator()(float activation) const { return activation > 0.0f ? 1 : 0; }
};

/// A block a token; reads 4 bytes a number.
__global__ void __launch_bounds__(kThreads)
    count_row(const float* activations, std::int64_t features, std::int32_t* counts) {
  __shared__ int room[kThreads / kWarp];
  int count = 0;
  for (std::int64_t i = threadIdx.x; i < features; i += kThreads)
    count += IsActive{}(activations[blockIdx.x * features + i]);
  count = block_sum(count, room);
  if (threadIdx.x == 0) counts[blockIdx.x] = count;
}

}  // namespace

void decoder_norms(Context& context, const Tensor& decoder, const Tensor& norms) {
  launch(context, "decoder_norms", {decoder.size(0), kThreads}, norm_of_row, numbers<const float>(decoder),
         decoder.size(1), numbers<float>(norms));
}

void weighted_activations(Context& context, const Tensor& activation_sums, const Tensor& norms, const Tensor& total) {
  launch(context, "weighted_activations", {1, kThreads}, weigh, numbers<const float>(activation_sums),
         numbers<const float>(norms), norms.size(0), numbers<double>(total));
}

void feature_gradient(Context& context, const Tensor& activations, const Tensor& norms, float coefficient,
                      const Tensor& gradient) {
  launch(context, "feature_gradient", {activations.size(0), kThreads}, gradient_of_row,
         numbers<const float>(activations), numbers<const float>(norms), FeatureGradient{coefficient},
         activations.size(1), numbers<float>(gradient));
}

void sparsity_decoder_gradient(Context& context, const Tensor& activation_sums, const Tensor& decoder,
                               const Tensor& norms, float coefficient, const Tensor& gradient) {
  launch(context, "sparsity_decoder_gradient", {decoder.size(0), kThreads}, add_sparsity,
         numbers<const float>(activation_sums), numbers<const float>(decoder), numbers<const float>(norms), coefficient,
         decoder.size(1), numbers<float>(gradient));
}

void column_sums(Context& context, const Tensor& x, const Tensor& sums) {
  if (x.dtype() == DType::kFloat32) return sum_columns<double, float>(context, "column_sums", x, sums, Itself{});
  sum_columns<double, bfloat16>(context, "column_sums", x, sums, Itself{});
}

void active_counts(Context& context, const Tensor& activations, const Tensor& counts) {
  sum_columns<std::int32_t, float>(context, "active_counts", activations, counts, IsActive{});
}

void l0(Context& context, const Tensor& activations, const Tensor& counts) {
  launch(context, "l0", {activations.size(0), kThreads}, count_row, numbers<const float>(activations),
         activations.size(1), numbers<std::int32_t>(counts));
}

}  // namespace tadapt::cuda
