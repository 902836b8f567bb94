#include <algorithm>
#include <cstring>
#include <tuple>
#include <utility>

#include "kernels/core/launch.h"
#include "kernels/core/vectorise.h"
#include "kernels/sparse.h"

namespace tadapt::cpu {
namespace {

/// Sixteen numbers that every instruction set adds and multiplies lane by lane, so with the same bits.
using Lanes [[gnu::vector_size(64)]] = float;
using LaneBits [[gnu::vector_size(64)]] = std::uint32_t;
using HalfLanes [[gnu::vector_size(32)]] = std::uint16_t;
constexpr std::int64_t kLanes = 16;

TADAPT_INLINE void load(const float* from, Lanes& lanes) { std::memcpy(&lanes, from, sizeof lanes); }
TADAPT_INLINE void load(const bfloat16* from, Lanes& lanes) {
  HalfLanes halves;
  std::memcpy(&halves, from, sizeof halves);
  const LaneBits bits = __builtin_convertvector(halves, LaneBits) << 16;
  std::memcpy(&lanes, &bits, sizeof lanes);
}

/// y += Σ_k factors_k · rows_k, k ascending; kRows rows at a time, so that y is read and written less often.
template <int kRows, class T>
TADAPT_INLINE void accumulate(const float* factors, const T* const* rows, std::int64_t n, float* y) {
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    Lanes sum, row;
    load(y + i, sum);
    for (int k = 0; k < kRows; ++k) {
      load(rows[k] + i, row);
      sum += factors[k] * row;
    }
    std::memcpy(y + i, &sum, sizeof sum);
  }
  for (; i < n; ++i)
    for (int k = 0; k < kRows; ++k) y[i] += factors[k] * static_cast<float>(rows[k][i]);
}

constexpr int kTogether = 4;

template <class T>
TADAPT_INLINE void accumulate_rows(const float* factors, const T* const* rows, std::int64_t count, std::int64_t n,
                                   float* y) {
  if (count == kTogether) return accumulate<kTogether>(factors, rows, n, y);
  for (std::int64_t k = 0; k < count; ++k) accumulate<1>(factors + k, rows + k, n, y);
}
TADAPT_VECTORISED void add_rows(const float* factors, const float* const* rows, std::int64_t count, std::int64_t n,
                                float* y) {
  accumulate_rows(factors, rows, count, n, y);
}
TADAPT_VECTORISED void add_rows(const float* factors, const bfloat16* const* rows, std::int64_t count, std::int64_t n,
                                float* y) {
  accumulate_rows(factors, rows, count, n, y);
}

/// 64 interleaved partial sums, joined in halves.
template <class T>
TADAPT_INLINE float lane_dot(const T* x, const T* y, std::int64_t n) {
  constexpr int kVectors = 4;
  Lanes sums[kVectors] = {};
  std::int64_t i = 0;
  for (; i + kVectors * kLanes <= n; i += kVectors * kLanes) {
    for (int v = 0; v < kVectors; ++v) {
      Lanes a, b;
      load(x + i + v * kLanes, a);
      load(y + i + v * kLanes, b);
      sums[v] += a * b;
    }
  }
  Lanes total = (sums[0] + sums[2]) + (sums[1] + sums[3]);
  float lanes[kLanes];
  std::memcpy(lanes, &total, sizeof lanes);
  for (std::int64_t lane = 0; i < n; ++i, lane = (lane + 1) % kLanes)
    lanes[lane] += static_cast<float>(x[i]) * static_cast<float>(y[i]);
  for (std::int64_t width = kLanes / 2; width > 0; width /= 2)
    for (std::int64_t lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
  return lanes[0];
}
TADAPT_VECTORISED float dot(const float* x, const float* y, std::int64_t n) { return lane_dot(x, y, n); }
TADAPT_VECTORISED float dot(const bfloat16* x, const bfloat16* y, std::int64_t n) { return lane_dot(x, y, n); }

/// Activations looked through at once: most stretches of this length hold no active feature.
constexpr std::int64_t kStretch = 64;

TADAPT_INLINE std::int32_t active_in_stretch(const float* a, std::int64_t n) {
  std::int32_t count = 0;
  for (std::int64_t i = 0; i < n; ++i) count += a[i] <= 0.0f ? 0 : 1;
  return count;
}
TADAPT_VECTORISED std::int32_t count_row(const float* a, std::int64_t n) { return active_in_stretch(a, n); }
TADAPT_VECTORISED void gather_row(const float* a, std::int64_t n, std::int32_t* features, float* activations) {
  for (std::int64_t begin = 0; begin < n; begin += kStretch) {
    const std::int64_t length = n - begin < kStretch ? n - begin : kStretch;
    if (active_in_stretch(a + begin, length) == 0) continue;
    for (std::int64_t i = begin; i < begin + length; ++i) {
      if (a[i] <= 0.0f) continue;
      *features++ = static_cast<std::int32_t>(i);
      *activations++ = a[i];
    }
  }
}

float rounded(float value, DType dtype) { return dtype == DType::kBFloat16 ? round_to_bfloat16(value) : value; }

/// y [n] += Σ factor_k · row_k over k in [0, count), where take(k) gives {factor, row}.
template <class T, class Take>
void add_all(std::int64_t count, std::int64_t n, float* y, Take take) {
  float factors[kTogether];
  const T* rows[kTogether];
  for (std::int64_t begin = 0; begin < count; begin += kTogether) {
    const std::int64_t some = std::min<std::int64_t>(kTogether, count - begin);
    for (std::int64_t k = 0; k < some; ++k) std::tie(factors[k], rows[k]) = take(begin + k);
    add_rows(factors, rows, some, n, y);
  }
}

/// output_t += Σ_p a_p · rows_{feature of p}, on top of `bias` or, where there is none, of what is there.
template <class T>
void add_pairs(Context& context, const SparseFeatures& features, const Tensor& weights, const Tensor& bias,
               const Tensor& output) {
  const std::int64_t width = weights.size(1), tokens = output.size(0);
  const T* rows = weights.span<T>().data();
  const std::int32_t* offsets = features.offsets.span<std::int32_t>().data();
  const std::int32_t* ids = features.features.span<std::int32_t>().data();
  const float* a = features.activations.span<float>().data();
  float* out = output.span<float>().data();
  parallel_blocks(context, tokens, rows_per_block(width), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t t = begin; t < end; ++t) {
      if (!bias.empty()) std::memcpy(out + t * width, bias.data(), bias.bytes());
      const std::int32_t first = offsets[t];
      add_all<T>(offsets[t + 1] - first, width, out + t * width, [&](std::int64_t k) {
        return std::pair(rounded(a[first + k], weights.dtype()), rows + ids[first + k] * width);
      });
    }
  });
}

template <class T>
void pair_gradients(Context& context, const SparseFeatures& features, const Tensor& decoder, const Tensor& cotangent,
                    const SparsityTerm& sparsity, const Tensor& gradient) {
  const std::int64_t width = decoder.size(1), tokens = cotangent.size(0);
  const T* rows = decoder.span<T>().data();
  const T* cotangents = cotangent.span<T>().data();
  const std::int32_t* offsets = features.offsets.span<std::int32_t>().data();
  const std::int32_t* ids = features.features.span<std::int32_t>().data();
  const float* a = features.activations.span<float>().data();
  const float* norms = sparsity.norms.span<float>().data();
  float* out = gradient.span<float>().data();
  const FeatureGradient formula{sparsity.coefficient};
  parallel_blocks(context, tokens, rows_per_block(width), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t t = begin; t < end; ++t)
      for (std::int32_t p = offsets[t]; p < offsets[t + 1]; ++p)
        out[p] = formula(a[p], norms[ids[p]], dot(cotangents + t * width, rows + ids[p] * width, width));
  });
}

/// Features that one thread takes at a time.
constexpr std::int64_t kFeatures = 16;

template <class T>
void weight_gradient_of(Context& context, const FeatureMajorPairs& by_feature, const Tensor& left, const Tensor& right,
                        DType compute, const Tensor& gradient) {
  const std::int64_t width = gradient.size(1);
  const T* rows = right.span<T>().data();
  const float* factors = left.span<float>().data();
  const std::int32_t* offsets = by_feature.offsets.span<std::int32_t>().data();
  const std::int32_t* tokens = by_feature.tokens.span<std::int32_t>().data();
  const std::int32_t* pairs = by_feature.pairs.span<std::int32_t>().data();
  float* out = gradient.span<float>().data();
  parallel_blocks(context, gradient.size(0), kFeatures, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; ++i) {
      float* row = out + i * width;
      std::memset(row, 0, static_cast<std::size_t>(width) * sizeof(float));
      const std::int32_t first = offsets[i];
      add_all<T>(offsets[i + 1] - first, width, row, [&](std::int64_t k) {
        return std::pair(rounded(factors[pairs[first + k]], compute), rows + tokens[first + k] * width);
      });
    }
  });
}

}  // namespace

std::int64_t count_pairs(Context& context, const Tensor& activations, const Tensor& offsets) {
  const std::int64_t tokens = activations.size(0), n = activations.size(1);
  const float* a = activations.span<float>().data();
  std::int32_t* out = offsets.span<std::int32_t>().data();
  out[0] = 0;
  parallel_blocks(context, tokens, rows_per_block(n), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t t = begin; t < end; ++t) out[t + 1] = count_row(a + t * n, n);
  });
  for (std::int64_t t = 0; t < tokens; ++t) out[t + 1] += out[t];
  return out[tokens];
}

void gather_pairs(Context& context, const Tensor& activations, const SparseFeatures& out) {
  const std::int64_t n = activations.size(1);
  const float* a = activations.span<float>().data();
  const std::int32_t* offsets = out.offsets.span<std::int32_t>().data();
  std::int32_t* features = out.features.span<std::int32_t>().data();
  float* values = out.activations.span<float>().data();
  parallel_blocks(context, activations.size(0), rows_per_block(n), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t t = begin; t < end; ++t) gather_row(a + t * n, n, features + offsets[t], values + offsets[t]);
  });
}

void sort_by_feature(Context&, const SparseFeatures& by_token, const FeatureMajorPairs& out) {
  const std::span<const std::int32_t> features = by_token.features.span<std::int32_t>();
  const std::span<const std::int32_t> starts = by_token.offsets.span<std::int32_t>();
  const std::span<std::int32_t> offsets = out.offsets.span<std::int32_t>();
  const std::span<std::int32_t> tokens = out.tokens.span<std::int32_t>(), pairs = out.pairs.span<std::int32_t>();
  std::ranges::fill(offsets, 0);
  for (const std::int32_t feature : features) ++offsets[static_cast<std::size_t>(feature)];
  std::int32_t before = 0;
  for (std::int32_t& offset : offsets) before += std::exchange(offset, before);
  for (std::size_t t = 0; t + 1 < starts.size(); ++t) {
    for (std::int32_t p = starts[t]; p < starts[t + 1]; ++p) {
      const std::int32_t place = offsets[static_cast<std::size_t>(features[static_cast<std::size_t>(p)])]++;
      tokens[static_cast<std::size_t>(place)] = static_cast<std::int32_t>(t);
      pairs[static_cast<std::size_t>(place)] = p;
    }
  }
  // Every offset has moved to the end of its feature, which is where the next one begins.
  std::shift_right(offsets.begin(), offsets.end(), 1);
  offsets[0] = 0;
}

void sparse_decode(Context& context, const SparseFeatures& features, const Tensor& decoder, const Tensor& bias,
                   const Tensor& output) {
  if (decoder.dtype() == DType::kFloat32) return add_pairs<float>(context, features, decoder, bias, output);
  add_pairs<bfloat16>(context, features, decoder, bias, output);
}

void sparse_input_gradient(Context& context, const SparseFeatures& features, const Tensor& encoder,
                           const Tensor& gradient) {
  if (encoder.dtype() == DType::kFloat32) return add_pairs<float>(context, features, encoder, Tensor(), gradient);
  add_pairs<bfloat16>(context, features, encoder, Tensor(), gradient);
}

void sparse_feature_gradient(Context& context, const SparseFeatures& features, const Tensor& decoder,
                             const Tensor& cotangent, const SparsityTerm& sparsity, const Tensor& gradient) {
  if (decoder.dtype() == DType::kFloat32)
    return pair_gradients<float>(context, features, decoder, cotangent, sparsity, gradient);
  pair_gradients<bfloat16>(context, features, decoder, cotangent, sparsity, gradient);
}

void sparse_weight_gradient(Context& context, const FeatureMajorPairs& by_feature, const Tensor& left,
                            const Tensor& right, DType compute, const Tensor& gradient) {
  if (right.dtype() == DType::kFloat32)
    return weight_gradient_of<float>(context, by_feature, left, right, compute, gradient);
  weight_gradient_of<bfloat16>(context, by_feature, left, right, compute, gradient);
}

void pair_sums(Context& context, const FeatureMajorPairs& by_feature, const Tensor& values, const Tensor& sums) {
  const float* numbers = values.span<float>().data();
  const std::int32_t* offsets = by_feature.offsets.span<std::int32_t>().data();
  const std::int32_t* pairs = by_feature.pairs.span<std::int32_t>().data();
  const std::span<float> out = sums.span<float>();
  parallel_blocks(context, sums.size(0), kFeatures * 16, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; ++i) {
      double sum = 0;
      for (std::int32_t k = offsets[i]; k < offsets[i + 1]; ++k) sum += static_cast<double>(numbers[pairs[k]]);
      out[static_cast<std::size_t>(i)] = static_cast<float>(sum);
    }
  });
}

void pair_counts(Context&, const FeatureMajorPairs& by_feature, const Tensor& counts) {
  const std::span<const std::int32_t> offsets = by_feature.offsets.span<std::int32_t>();
  const std::span<float> out = counts.span<float>();
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = static_cast<float>(offsets[i + 1] - offsets[i]);
}

}  // namespace tadapt::cpu
