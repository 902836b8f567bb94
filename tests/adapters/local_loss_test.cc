// The local loss and its gradients against a double-precision oracle and its finite differences.
#include "runtime/loss/local_loss.h"

#include <gtest/gtest.h>

#include <array>
#include <optional>

#include "kernels/core/memory.h"
#include "kernels/core/random.h"
#include "tests/adapters/transcoder_oracle.h"
#include "tests/support/devices.h"

namespace tadapt {
namespace {

struct Problem {
  std::int64_t tokens, width, features;
  double sparse_below;  ///< features per token: 0 takes the dense route, many the sparse one
  Device device = Device::kCpu;
};
constexpr double kMany = 1e9;

class LocalLossTest : public ::testing::TestWithParam<Problem> {
 protected:
  void SetUp() override {
    const auto& [tokens, width, features, sparse_below, device] = GetParam();
    if (device == Device::kCuda && !testing::has_gpu()) GTEST_SKIP() << "no GPU here";
    context_.emplace(testing::context_on(device, 2));
    adapter_ = make_adapter("transcoder", {width, features}, {DType::kFloat32, sparse_below});
    store_ = std::make_unique<ParameterStore>(device, std::vector{adapter_->parameters("layer-000")});
    const ParameterTensors masters = store_->master_views(0);
    adapter_->initialise(*context_, masters, 7, 0);
    std::uint64_t sample = 0;
    for (const char* name : {"W_dec", "b_enc", "b_dec"}) {
      std::vector<float> numbers(static_cast<std::size_t>(masters[name].elements()));
      fill(numbers, ++sample);
      copy(*context_, Tensor::of(std::span(numbers), masters[name].shape()), masters[name]);
      synchronize(*context_);
    }
    x_.resize(static_cast<std::size_t>(tokens * width));
    delta_.resize(x_.size());
    fill(x_, 100);
    fill(delta_, 101);
    adapter_->prepare(*context_, masters);
  }

  static void fill(std::span<float> values, std::uint64_t sample) {
    const RandomStream random(3, RandomPurpose::kTest, 0, sample);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = random.uniform(static_cast<std::uint32_t>(i)) - 0.5f;
  }

  oracle::Transcoder oracle_transcoder() {
    const ParameterTensors masters = store_->master_views(0);
    const auto doubles = [&](const char* name) {
      const std::vector<float> values = on_host<float>(*context_, masters[name]);
      return std::vector<double>(values.begin(), values.end());
    };
    return {static_cast<std::size_t>(GetParam().width),
            static_cast<std::size_t>(GetParam().features),
            doubles("W_enc"),
            doubles("b_enc"),
            doubles("W_dec"),
            doubles("b_dec")};
  }

  LocalLossValue run() {
    const auto& [tokens, width, features, sparse_below, device] = GetParam();
    LocalLossPass pass(device, {tokens, {width, features}, sparse_below});
    const DeviceView x(*context_, Tensor::of(std::span(x_), {tokens, width})),
        delta(*context_, Tensor::of(std::span(delta_), {tokens, width}));
    const Buffer value(device, DType::kFloat64, {2});
    pass.value_and_gradient(*context_, {.adapter = *adapter_,
                                        .loss = loss_,
                                        .x = x.tensor(),
                                        .delta = delta.tensor(),
                                        .masters = store_->master_views(0),
                                        .group = store_->group(0),
                                        .gradient = store_->gradient(0),
                                        .value = value.tensor()});
    const std::vector<double> numbers = on_host<double>(*context_, value.tensor());
    return {numbers[0], numbers[1]};
  }

  std::optional<Context> context_;
  LocalLoss loss_{.delta_scale = 0.7, .sparsity = 0.3, .batch_tokens = 50};
  std::unique_ptr<Adapter> adapter_;
  std::unique_ptr<ParameterStore> store_;
  std::vector<float> x_, delta_;
};

TEST_P(LocalLossTest, ValueEqualsTheOracle) {
  const LocalLossValue value = run();
  const std::vector<double> x(x_.begin(), x_.end()), delta(delta_.begin(), delta_.end());
  const oracle::Transcoder transcoder = oracle_transcoder();
  const double errors = oracle::loss(transcoder, x, delta, 1.0, 0.0);
  const double weighted = oracle::loss(transcoder, x, delta, 0.0, 1.0);
  EXPECT_NEAR(value.square_error, errors, 1e-5 * errors);
  EXPECT_NEAR(value.weighted_activations, weighted, 1e-5 * weighted + 1e-9);
}

TEST_P(LocalLossTest, GradientsEqualFiniteDifferences) {
  run();
  const std::vector<double> x(x_.begin(), x_.end()), delta(delta_.begin(), delta_.end());
  const double error_factor = 1.0 / (loss_.delta_scale * loss_.delta_scale * static_cast<double>(loss_.batch_tokens));
  oracle::Transcoder transcoder = oracle_transcoder();
  const auto at = [&](double& parameter, double value) {
    const double before = parameter;
    parameter = value;
    const double result = oracle::loss(transcoder, x, delta, error_factor, loss_.sparsity_scale());
    parameter = before;
    return result;
  };
  const ParameterTensors gradients = parameter_views(store_->group(0), store_->gradient(0));
  const auto check = [&](const char* name, std::vector<double>& parameters) {
    const std::vector<float> gradient = on_host<float>(*context_, gradients[name]);
    for (std::size_t i = 0; i < parameters.size(); i += 1 + parameters.size() / 40) {
      constexpr double kStep = 1e-6;
      const double numeric =
          (at(parameters[i], parameters[i] + kStep) - at(parameters[i], parameters[i] - kStep)) / (2.0 * kStep);
      EXPECT_NEAR(gradient[i], numeric, 2e-5 * (1.0 + std::abs(numeric))) << name << " element " << i;
    }
  };
  check("W_enc", transcoder.encoder);
  check("b_enc", transcoder.encoder_bias);
  check("W_dec", transcoder.decoder);
  check("b_dec", transcoder.decoder_bias);
}

TEST_P(LocalLossTest, CountsActiveFeatures) {
  run();
  const std::int64_t tokens = GetParam().tokens;
  const std::vector<float> counts =
      on_host<float>(*context_, statistic_views(store_->group(0), store_->gradient(0))[kActiveCounts]);
  const oracle::Transcoder transcoder = oracle_transcoder();
  for (std::size_t i = 0; i < transcoder.features; ++i) {
    int expected = 0;
    for (std::size_t row = 0; row < static_cast<std::size_t>(tokens); ++row) {
      double a = transcoder.encoder_bias[i];
      for (std::size_t d = 0; d < transcoder.width; ++d)
        a += transcoder.encoder[i * transcoder.width + d] * static_cast<double>(x_[row * transcoder.width + d]);
      expected += a > 0.0;
    }
    EXPECT_EQ(counts[i], static_cast<float>(expected)) << "feature " << i;
  }
}

std::vector<Problem> problems() {
  std::vector<Problem> all;
  for (const Device device : {Device::kCpu, Device::kCuda})
    for (const double sparse_below : {0.0, kMany})
      for (const auto& [tokens, width, features] :
           {std::array{1, 1, 1}, std::array{5, 7, 11}, std::array{33, 16, 40}, std::array{130, 9, 3}})
        all.push_back({tokens, width, features, sparse_below, device});
  return all;
}
INSTANTIATE_TEST_SUITE_P(Shapes, LocalLossTest, ::testing::ValuesIn(problems()), [](const auto& test) {
  const Problem& p = test.param;
  return fmt::format("{}_T{}_D{}_F{}_{}", name(p.device), p.tokens, p.width, p.features,
                     p.sparse_below > 0 ? "sparse" : "dense");
});

TEST(Transcoder, StartsAtZeroOutputAndZeroSubgradientOfTheNorm) {
  Context context = Context::cpu(1);
  const auto adapter = make_adapter("transcoder", {8, 16}, {DType::kFloat32});
  ParameterStore store(Device::kCpu, {adapter->parameters("layer-000")});
  adapter->initialise(context, store.master_views(0), 1, 3);
  adapter->prepare(context, store.master_views(0));
  std::vector<float> x(8 * 4, 0.5f), delta(8 * 4, 0.25f);
  LocalLossPass pass(Device::kCpu, {4, {8, 16}});
  std::vector<double> value(2);
  pass.value_and_gradient(context, {.adapter = *adapter,
                                    .loss = {.delta_scale = 1.0, .sparsity = 1.0, .batch_tokens = 4},
                                    .x = Tensor::of(std::span(x), {4, 8}),
                                    .delta = Tensor::of(std::span(delta), {4, 8}),
                                    .masters = store.master_views(0),
                                    .group = store.group(0),
                                    .gradient = store.gradient(0),
                                    .value = Tensor::of(std::span(value), {2})});
  EXPECT_EQ(value[0], 32 * 0.0625);
  EXPECT_EQ(value[1], 0.0);
  for (const float gradient : store.gradient(0).span<float>()) EXPECT_TRUE(std::isfinite(gradient));
}

TEST(Transcoder, InitialWeightsDependOnSeedAndLayerOnly) {
  const auto weights = [](std::uint64_t seed, int layer) {
    const auto adapter = make_adapter("transcoder", {8, 16}, {DType::kBFloat16});
    ParameterStore store(Device::kCpu, {adapter->parameters("any")});
    Context context = Context::cpu(1);
    adapter->initialise(context, store.master_views(0), seed, layer);
    const auto encoder = store.master_views(0)["W_enc"].span<float>();
    return std::vector<float>(encoder.begin(), encoder.end());
  };
  EXPECT_EQ(weights(1, 2), weights(1, 2));
  EXPECT_NE(weights(1, 2), weights(2, 2));
  EXPECT_NE(weights(1, 2), weights(1, 3));
  for (const float weight : weights(1, 2)) EXPECT_LE(std::abs(weight), 1.0f / std::sqrt(8.0f));
}

TEST(Transcoder, RefusesAnEmptyDictionary) {
  EXPECT_THROW(make_adapter("transcoder", {8, 0}, {}), ConfigError);
  EXPECT_THROW(make_adapter("transcodr", {8, 4}, {}), ConfigError);
}

}  // namespace
}  // namespace tadapt
