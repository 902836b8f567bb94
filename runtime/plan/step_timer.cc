#include "runtime/plan/step_timer.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "kernels/core/memory.h"
#include "kernels/uniform.h"

namespace tadapt {
namespace {

void fill(Context& context, const Tensor& numbers, std::uint64_t sample, float bound) {
  uniform(context, RandomStream(11, RandomPurpose::kTest, 0, sample), bound, numbers.reshaped({numbers.elements()}));
}

}  // namespace

StepTimer::StepTimer(Context& context, const StepSetting& setting, double sparse_below)
    : context_(context),
      adapter_(make_adapter("transcoder", setting.shape, {setting.compute, sparse_below})),
      store_(context.device(), {adapter_->parameters("layer")}),
      x_(context.device(), DType::kBFloat16, {setting.tokens, setting.shape.model_width}),
      delta_(context.device(), DType::kBFloat16, {setting.tokens, setting.shape.model_width}),
      value_(context.device(), DType::kFloat64, {2}),
      pass_(context.device(), {setting.tokens, setting.shape, sparse_below}),
      masters_(store_.master_views(0)) {
  adapter_->initialise(context, masters_, 1, 0);
  fill(context, masters_["W_dec"], 1, 0.02f);
  fill(context, x_.tensor(), 2, 1.0f);
  fill(context, delta_.tensor(), 3, 1.0f);
}

void StepTimer::set_l0(double l0) {
  const auto features = static_cast<std::size_t>(adapter_->shape().features);
  const double share = l0 / static_cast<double>(features);
  std::vector<float> biases(features, static_cast<float>(-upper_quantile(share) / 3.0));
  copy(context_, Tensor::of(std::span(biases), masters_["b_enc"].shape()), masters_["b_enc"]);
  adapter_->prepare(context_, masters_);
  synchronize(context_);
}

double StepTimer::seconds() {
  const auto start = std::chrono::steady_clock::now();
  pass_.value_and_gradient(context_,
                           {.adapter = *adapter_,
                            .loss = {.delta_scale = 1.0, .sparsity = 1e-3, .batch_tokens = x_.tensor().size(0)},
                            .x = x_.tensor(),
                            .delta = delta_.tensor(),
                            .masters = masters_,
                            .group = store_.group(0),
                            .gradient = store_.gradient(0),
                            .value = value_.tensor()});
  synchronize(context_);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double StepTimer::l0() const {
  double active = 0;
  for (const float count :
       on_host<float>(context_, statistic_views(store_.group(0), store_.gradient(0))[kActiveCounts]))
    active += static_cast<double>(count);
  return active / static_cast<double>(x_.tensor().size(0));
}

double upper_quantile(double share) {
  double low = -10, high = 10;
  for (int i = 0; i < 80; ++i) {
    const double middle = (low + high) / 2;
    (std::erfc(middle / std::sqrt(2.0)) / 2 > share ? low : high) = middle;
  }
  return low;
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

double measure_break_even(Context& context, const StepSetting& setting) {
  constexpr int kRuns = 5;
  constexpr int kHalvings = 7;
  const auto features = static_cast<double>(setting.shape.features);
  StepTimer dense(context, setting, 0.0), sparse(context, setting, 2.0 * features);
  const auto sparse_is_faster = [&](double l0) {
    std::vector<double> dense_seconds, sparse_seconds;
    for (StepTimer* timer : {&dense, &sparse}) {
      timer->set_l0(l0);
      timer->seconds();  // caches and clocks warm
    }
    for (int i = 0; i < kRuns; ++i) {
      dense_seconds.push_back(dense.seconds());
      sparse_seconds.push_back(sparse.seconds());
    }
    return median(sparse_seconds) < median(dense_seconds);
  };
  if (!sparse_is_faster(0.0)) return 0.0;
  double below = std::min(1.0, features / 2), above = features;  // by ratio: costs span orders of magnitude
  if (!sparse_is_faster(below)) return 0.0;
  if (sparse_is_faster(features * 0.99)) return features;
  for (int i = 0; i < kHalvings; ++i) {
    const double middle = std::sqrt(below * above);
    (sparse_is_faster(middle) ? below : above) = middle;
  }
  return std::sqrt(below * above);
}

}  // namespace tadapt
