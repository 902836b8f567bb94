#include "runtime/adapter/feature_record.h"

#include <algorithm>
#include <cmath>

namespace tadapt {
namespace {

/// The first n elements.
Tensor first(const Buffer& memory, std::int64_t n) { return memory.tensor().rows(0, n); }

}  // namespace

std::int64_t most_pairs(std::int64_t tokens, std::int64_t features, double sparse_below) {
  const double below = std::ceil(sparse_below * static_cast<double>(tokens));
  return static_cast<std::int64_t>(std::clamp(below, 0.0, static_cast<double>(tokens * features)));
}

FeatureRecord::FeatureRecord(Device device, std::int64_t tokens, std::int64_t features, std::int64_t most_pairs)
    : most_pairs_(most_pairs),
      dense_(device, DType::kFloat32, {tokens * features}),
      token_offsets_(device, DType::kInt32, {tokens + 1}),
      feature_offsets_(device, DType::kInt32, {features + 1}),
      features_(device, DType::kInt32, {most_pairs}),
      values_(device, DType::kFloat32, {most_pairs}),
      tokens_(device, DType::kInt32, {most_pairs}),
      places_(device, DType::kInt32, {most_pairs}),
      scratch_(device, DType::kFloat32, {most_pairs}) {}

Tensor FeatureRecord::begin(std::int64_t tokens, std::int64_t features) {
  activations_ = first(dense_, tokens * features).reshaped({tokens, features});
  route_ = Route::kDense;
  sorted_ = false;
  return activations_;
}

void FeatureRecord::settle(Context& context, double sparse_below) {
  if (sparse_below <= 0.0) return;
  const Tensor offsets = first(token_offsets_, tokens() + 1);
  const std::int64_t pairs = count_pairs(context, activations_, offsets);
  if (pairs > most_pairs_ || static_cast<double>(pairs) >= sparse_below * static_cast<double>(tokens())) return;
  by_token_ = {offsets, first(features_, pairs), first(values_, pairs)};
  by_feature_ = {first(feature_offsets_, activations_.size(1) + 1), first(tokens_, pairs), first(places_, pairs)};
  gather_pairs(context, activations_, by_token_);
  route_ = Route::kSparse;
}

const FeatureMajorPairs& FeatureRecord::by_feature(Context& context) {
  if (!sorted_) sort_by_feature(context, by_token_, by_feature_);
  sorted_ = true;
  return by_feature_;
}

Tensor FeatureRecord::pair_scratch() const { return first(scratch_, by_token_.features.size(0)); }

std::int64_t FeatureRecord::bytes(std::int64_t tokens, std::int64_t features, std::int64_t most_pairs) {
  constexpr std::int64_t kNumber = 4;
  constexpr std::int64_t kPerPair = 5;  // feature, activation, token, place, scratch
  return kNumber * (tokens * features + tokens + 1 + features + 1 + kPerPair * most_pairs);
}

}  // namespace tadapt
