#include "runtime/analysis/active_pairs.h"

#include "kernels/core/memory.h"
#include "kernels/sparse.h"
#include "runtime/adapter/grown.h"

namespace tadapt {
namespace {

Tensor grown_row(const Context& context, Buffer& memory, DType dtype, std::int64_t elements) {
  return grown(context, memory, dtype, 1, elements).reshaped({elements});
}

template <class T>
void bring(Context& context, const Tensor& from, std::vector<T>& to) {
  to.resize(static_cast<std::size_t>(from.elements()));
  copy(context, from, Tensor::of(std::span(to), from.shape()));
}

}  // namespace

FeaturePairs ActivePairs::gather(Context& context, const Tensor& activations) {
  const std::int64_t tokens = activations.size(0), features = activations.size(1);
  const Tensor starts = grown_row(context, token_offsets_, DType::kInt32, tokens + 1);
  const std::int64_t pairs = count_pairs(context, activations, starts);
  const SparseFeatures by_token{starts, grown_row(context, features_, DType::kInt32, pairs),
                                grown_row(context, values_, DType::kFloat32, pairs)};
  const FeatureMajorPairs by_feature{grown_row(context, feature_offsets_, DType::kInt32, features + 1),
                                     grown_row(context, tokens_, DType::kInt32, pairs),
                                     grown_row(context, places_, DType::kInt32, pairs)};
  gather_pairs(context, activations, by_token);
  sort_by_feature(context, by_token, by_feature);
  bring(context, by_feature.offsets, offsets_);
  bring(context, by_feature.tokens, rows_);
  bring(context, by_feature.pairs, order_);
  bring(context, by_token.activations, by_token_);
  synchronize(context);
  activations_.resize(order_.size());
  for (std::size_t i = 0; i < order_.size(); ++i) activations_[i] = by_token_[static_cast<std::size_t>(order_[i])];
  return {offsets_, rows_, activations_};
}

}  // namespace tadapt
