// sample_tokens against sorting in double: every token's probability is measured by the draws that give it.
#include "kernels/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "tests/kernels/testing.h"

namespace tadapt {
namespace {
constexpr float kInfinity = std::numeric_limits<float>::infinity();

class Sampling : public testing::PerDevice {
 protected:
  void SetUp() override {
    PerDevice::SetUp();
    if (!IsSkipped()) context_.emplace(testing::context_on(GetParam(), 2));
  }
  /// One row of logits for all draws.
  std::vector<std::int32_t> sample(const std::vector<float>& logits, std::vector<std::int64_t> draws,
                                   const SamplingRule& rule) {
    const auto rows = static_cast<std::int64_t>(draws.size());
    std::vector<float> all;
    for (std::int64_t i = 0; i < rows; ++i) all.insert(all.end(), logits.begin(), logits.end());
    const DeviceView at(*context_, Tensor::of(std::span(all), {rows, static_cast<std::int64_t>(logits.size())})),
        bits(*context_, Tensor::of(std::span(draws), {rows}));
    const Buffer tokens(GetParam(), DType::kInt32, {rows});
    sample_tokens(*context_, at.tensor(), bits.tensor(), rule, tokens.tensor());
    return on_host<std::int32_t>(*context_, tokens.tensor());
  }
  std::optional<Context> context_;
};
INSTANTIATE_TEST_SUITE_P(Devices, Sampling, testing::kEachDevice, testing::device_name);

std::vector<float> random_logits(std::size_t size, float spread) {
  const RandomStream random(3, RandomPurpose::kTest, 0, size);
  std::vector<float> logits;
  for (std::uint32_t i = 0; i < size; ++i) logits.push_back(spread * random.uniform(i));
  return logits;
}

/// The i-th of `count` equal steps through all 64-bit draws.
std::vector<std::int64_t> grid_of_draws(std::size_t count) {
  std::vector<std::int64_t> draws;
  for (std::size_t i = 0; i < count; ++i)
    draws.push_back(static_cast<std::int64_t>(
        static_cast<std::uint64_t>((static_cast<double>(i) + 0.5) / static_cast<double>(count) * 0x1p64)));
  return draws;
}

/// Probabilities of all tokens under the rule.
std::vector<double> oracle(const std::vector<float>& logits, const SamplingRule& rule) {
  std::vector<double> p;
  const double largest = *std::ranges::max_element(logits);
  for (const float logit : logits) p.push_back(std::exp((logit - largest) / rule.temperature));
  const double total = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& number : p) number /= total;
  std::vector<std::size_t> order(p.size());
  std::iota(order.begin(), order.end(), 0u);
  std::ranges::sort(order, [&](std::size_t a, std::size_t b) { return p[a] != p[b] ? p[a] > p[b] : a < b; });
  double sum = 0;
  for (const std::size_t token : order) {
    const double before = sum;
    sum += p[token];
    if (before >= rule.top_p - 1e-9) p[token] = 0;
  }
  const double kept = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& number : p) number /= kept;
  return p;
}

TEST_P(Sampling, EveryTokenHasItsShareOfTheDraws) {
  const std::size_t draws = GetParam() == Device::kCpu ? 4000 : 10;  // device code on the host is slow
  for (const auto& [size, spread] : {std::pair<std::size_t, float>{1, 1.0f}, {7, 3.0f}, {100, 6.0f}, {1500, 9.0f}}) {
    const std::vector<float> logits = random_logits(size, spread);
    for (const SamplingRule& rule :
         {SamplingRule{1.0f, 1.0}, {0.7f, 1.0}, {0.7f, 0.9}, {1.5f, 0.5}, {1.0f, 1e-6}, {0.3f, 0.999}}) {
      std::vector<double> share(size, 0.0);
      for (const std::int32_t token : sample(logits, grid_of_draws(draws), rule))
        share.at(static_cast<std::size_t>(token)) += 1.0 / static_cast<double>(draws);
      const std::vector<double> truth = oracle(logits, rule);
      for (std::size_t v = 0; v < size; ++v)
        ASSERT_NEAR(share[v], truth[v], 1.0 / static_cast<double>(draws) + 1e-6)
            << "V " << size << " T " << rule.temperature << " p " << rule.top_p << " token " << v;
    }
  }
}

TEST_P(Sampling, TemperatureZeroTakesTheFirstOfTheLargest) {
  EXPECT_EQ(sample({0.5f, 2.0f, -1.0f, 2.0f}, {-1}, {.temperature = 0}), std::vector<std::int32_t>{1});
}

TEST_P(Sampling, OfEqualTokensANucleusTakesTheLowerIds) {
  const std::vector<float> logits{1.0f, 2.0f, 1.0f, 1.0f, 1.0f};
  // e / (e + 4) = 0.405; each tie adds 0.149.
  std::vector<std::int32_t> tokens = sample(logits, grid_of_draws(40), {.temperature = 1, .top_p = 0.6});
  std::ranges::sort(tokens);
  tokens.erase(std::ranges::unique(tokens).begin(), tokens.end());
  EXPECT_EQ(tokens, (std::vector<std::int32_t>{0, 1, 2}));
}

TEST_P(Sampling, LogitsThatAreNoNumbersGiveNoToken) {
  const float nan = std::nanf("");
  for (const SamplingRule& rule : {SamplingRule{1.0f, 1.0}, {0.0f, 1.0}, {1.0f, 0.5}}) {
    EXPECT_EQ(sample({1.0f, nan, 3.0f}, {7}, rule), std::vector<std::int32_t>{-1});
    EXPECT_EQ(sample({1.0f, kInfinity}, {7}, rule), std::vector<std::int32_t>{-1});
    EXPECT_EQ(sample({-kInfinity, -kInfinity}, {7}, rule), std::vector<std::int32_t>{-1});
    EXPECT_EQ(sample({-kInfinity, 1.0f, -kInfinity}, {7}, rule), std::vector<std::int32_t>{1});
  }
}

TEST(SamplingOnGpu, GivesTheTokensOfTheCpu) {
  if (!testing::has_gpu()) GTEST_SKIP() << "no GPU here";
  Context cpu = Context::cpu(2), gpu = Context::cuda(0);
  const Buffer logits = testing::uniform(DType::kFloat32, {8, 1501}, 1, -4, 8);
  Buffer draws(Device::kCpu, DType::kInt64, {8});
  for (std::uint32_t i = 0; i < 8; ++i)
    draws.span<std::int64_t>()[i] = static_cast<std::int64_t>(RandomStream(1, RandomPurpose::kTest, 0, 0).bits64(i));
  const DeviceView logits_there(gpu, logits.tensor()), draws_there(gpu, draws.tensor());
  for (const double top_p : {1.0, 0.8}) {
    const SamplingRule rule{.temperature = 0.9f, .top_p = top_p};
    const Buffer here(Device::kCpu, DType::kInt32, {8}), there(Device::kCuda, DType::kInt32, {8});
    sample_tokens(cpu, logits.tensor(), draws.tensor(), rule, here.tensor());
    sample_tokens(gpu, logits_there.tensor(), draws_there.tensor(), rule, there.tensor());
    EXPECT_EQ(on_host<std::int32_t>(gpu, there.tensor()), on_host<std::int32_t>(cpu, here.tensor()));
  }
}

TEST(SamplingRules, OutOfRangeAreRefused) {
  Context context = Context::cpu(1);
  const Buffer logits(Device::kCpu, DType::kFloat32, {1, 4}), draws(Device::kCpu, DType::kInt64, {1}),
      tokens(Device::kCpu, DType::kInt32, {1});
  for (const SamplingRule& rule : {SamplingRule{-0.1f, 1.0}, {1.0f, 0.0}, {1.0f, 1.1}})
    EXPECT_THROW(sample_tokens(context, logits.tensor(), draws.tensor(), rule, tokens.tensor()), ShapeError);
}

}  // namespace
}  // namespace tadapt
