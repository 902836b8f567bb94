// One leaf's forward, loss and gradients of an adapter over its density: dense, sparse and by the committed choice.
//   bench_adapter_step [bf16|fp32] [THREADS] [TOKENS] [D] [F]
// Medians of interleaved runs, the spread of the dense step against itself beside them.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "kernels/core/random.h"
#include "kernels/instruction_set.h"
#include "runtime/adapter/break_even.h"
#include "runtime/loss/local_loss.h"

namespace tadapt {
namespace {

constexpr int kRuns = 9;

void fill(std::span<float> values, std::uint64_t sample, float scale) {
  const RandomStream random(11, RandomPurpose::kTest, 0, sample);
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = scale * (2.0f * random.uniform(static_cast<std::uint32_t>(i)) - 1.0f);
}

/// z with P(N(0, 1) > z) = share.
double upper_quantile(double share) {
  double low = -10, high = 10;
  for (int i = 0; i < 80; ++i) {
    const double middle = (low + high) / 2;
    (std::erfc(middle / std::sqrt(2.0)) / 2 > share ? low : high) = middle;
  }
  return low;
}

struct Setting {
  AdapterShape shape;
  std::int64_t tokens;
  DType compute;
};

/// An adapter whose features are active on a given share of tokens, and the leaf it is trained on.
class Step {
 public:
  Step(Context& context, const Setting& setting, double sparse_below)
      : context_(context),
        adapter_(make_adapter("transcoder", setting.shape, {setting.compute, sparse_below})),
        store_(Device::kCpu, {adapter_->parameters("layer")}),
        x_(Device::kCpu, DType::kBFloat16, {setting.tokens, setting.shape.model_width}),
        delta_(Device::kCpu, DType::kBFloat16, {setting.tokens, setting.shape.model_width}),
        pass_(Device::kCpu, {setting.tokens, setting.shape, sparse_below}),
        masters_(store_.master_views(0)) {
    adapter_->initialise(masters_, 1, 0);
    fill(masters_["W_dec"].span<float>(), 1, 0.02f);
    const auto random_rows = [&](Buffer& rows, std::uint64_t sample) {
      std::vector<float> values(rows.span<bfloat16>().size());
      fill(values, sample, 1.0f);
      std::ranges::transform(values, rows.span<bfloat16>().begin(), [](float value) { return bfloat16(value); });
    };
    random_rows(x_, 2);
    random_rows(delta_, 3);
  }

  /// Weights and inputs are uniform, so pre-activations are normal with variance 1/9 about the bias.
  void set_l0(double l0) {
    const double share = l0 / static_cast<double>(adapter_->shape().features);
    const auto bias = static_cast<float>(-upper_quantile(share) / 3.0);
    std::ranges::fill(masters_["b_enc"].span<float>(), bias);
    adapter_->prepare(context_, masters_);
  }
  double seconds() {
    const auto start = std::chrono::steady_clock::now();
    pass_.value_and_gradient(context_,
                             {.adapter = *adapter_,
                              .loss = {.delta_scale = 1.0, .sparsity = 1e-3, .batch_tokens = x_.tensor().size(0)},
                              .x = x_.tensor(),
                              .delta = delta_.tensor(),
                              .masters = masters_,
                              .group = store_.group(0),
                              .gradient = store_.gradient(0)});
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  double l0() const {
    double active = 0;
    for (const float count : statistic_views(store_.group(0), store_.gradient(0))[kActiveCounts].span<float>())
      active += static_cast<double>(count);
    return active / static_cast<double>(x_.tensor().size(0));
  }

 private:
  Context& context_;
  std::unique_ptr<Adapter> adapter_;
  ParameterStore store_;
  Buffer x_, delta_;
  LocalLossPass pass_;
  ParameterTensors masters_;
};

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

void run(Context& context, const Setting& setting) {
  const double features = static_cast<double>(setting.shape.features);
  const double chosen = break_even(Device::kCpu, setting.shape, setting.compute);
  Step dense(context, setting, 0.0), again(context, setting, 0.0), sparse(context, setting, 2.0 * features),
      automatic(context, setting, chosen);
  std::printf("D %lld, F %lld, T %lld, %s, %s, %d threads; sparse below %.0f active features per token\n",
              static_cast<long long>(setting.shape.model_width), static_cast<long long>(setting.shape.features),
              static_cast<long long>(setting.tokens), name(setting.compute), name(effective_instruction_set()).c_str(),
              context.threads(), chosen);
  std::printf("%9s %10s %10s %10s %8s %8s %8s\n", "L0", "dense ms", "sparse ms", "auto ms", "speed-up", "auto/min",
              "spread");
  std::vector<Step*> steps = {&dense, &sparse, &automatic, &again};
  for (const double share :
       {0.0, 0.1 / 8192, 1.4 / 8192, 10.0 / 8192, 64.0 / 8192, 200.0 / 8192, 400.0 / 8192, 800.0 / 8192, 0.5}) {
    for (Step* step : steps) {
      step->set_l0(share * features);
      step->seconds();
    }
    std::vector<std::vector<double>> seconds(steps.size());
    for (int i = 0; i < kRuns; ++i)
      for (std::size_t s = 0; s < steps.size(); ++s) seconds[s].push_back(steps[s]->seconds());
    const double d = median(seconds[0]), p = median(seconds[1]), a = median(seconds[2]), e = median(seconds[3]);
    std::printf("%9.2f %10.1f %10.1f %10.1f %8.2f %8.3f %8.3f\n", dense.l0(), 1e3 * d, 1e3 * p, 1e3 * a, d / p,
                a / std::min(d, p), std::max(d, e) / std::min(d, e));
    std::fflush(stdout);
  }
}

}  // namespace
}  // namespace tadapt

int main(int argc, char** argv) {
  const auto word = [&](int i, long long otherwise) { return argc > i ? std::atoll(argv[i]) : otherwise; };
  const tadapt::DType compute =
      argc > 1 && std::string(argv[1]) == "fp32" ? tadapt::DType::kFloat32 : tadapt::DType::kBFloat16;
  tadapt::Context context = tadapt::Context::cpu(argc > 2 ? static_cast<int>(word(2, 1)) : tadapt::threads_per_rank(1));
  tadapt::run(context, {.shape = {word(4, 3584), word(5, 8192)}, .tokens = word(3, 1024), .compute = compute});
  return 0;
}
