// causal_attention_backward against its formula in double, which is held against finite differences, and against itself
// under other packings and threads.
#include "kernels/attention_backward.h"

#include <cmath>

#include "kernels/core/memory.h"
#include "tests/kernels/finite_difference.h"
#include "tests/kernels/testing.h"

namespace tadapt {
namespace {
using testing::same_bits;
using testing::uniform;
using testing::value;

struct Case {
  std::int64_t heads, groups, size;
  std::vector<std::int32_t> lengths;
};

Buffer make_offsets(const std::vector<std::int32_t>& lengths) {
  Buffer offsets(Device::kCpu, DType::kInt32, {static_cast<std::int64_t>(lengths.size()) + 1});
  for (std::size_t i = 0; i < lengths.size(); ++i)
    offsets.span<std::int32_t>()[i + 1] = offsets.span<std::int32_t>()[i] + lengths[i];
  return offsets;
}

struct Gradients {
  Gradients(const Case& c, std::int64_t t)
      : query(uniform(DType::kFloat32, {t, c.heads, c.size}, 11)),  // to be overwritten
        key(uniform(DType::kFloat32, {t, c.groups, c.size}, 12)),
        value(uniform(DType::kFloat32, {t, c.groups, c.size}, 13)) {}
  Buffer query, key, value;
};

struct Operands {
  Buffer query, key, value, cotangent, offsets;
  AttentionInput input(DType compute = DType::kFloat32) const {
    return {query.tensor(), key.tensor(), value.tensor(), offsets.tensor(), compute};
  }
  std::int64_t tokens() const { return query.tensor().size(0); }
};

Operands make(const Case& c, float low = -2, float high = 2) {
  Buffer offsets = make_offsets(c.lengths);
  const std::int64_t t = offsets.span<std::int32_t>().back();
  return {uniform(DType::kFloat32, {t, c.heads, c.size}, 1, low, high),
          uniform(DType::kFloat32, {t, c.groups, c.size}, 2, low, high),
          uniform(DType::kFloat32, {t, c.groups, c.size}, 3), uniform(DType::kFloat32, {t, c.heads, c.size}, 4),
          std::move(offsets)};
}

using Numbers = std::vector<double>;
struct Truth {
  Numbers query, key, value, cotangent;  ///< operands, or gradients where they belong to them
};
Truth numbers_of(const Operands& o) {
  return {testing::doubles(o.query.tensor()), testing::doubles(o.key.tensor()), testing::doubles(o.value.tensor()),
          testing::doubles(o.cotangent.tensor())};
}

/// The weights of query (t, n) over keys [start, t].
Numbers weights_of(const Case& c, const Truth& o, std::int64_t start, std::int64_t t, std::int64_t n) {
  Numbers weights;
  double sum = 0;
  for (std::int64_t s = start; s <= t; ++s) {
    double score = 0;
    for (std::int64_t d = 0; d < c.size; ++d)
      score += o.query[static_cast<std::size_t>((t * c.heads + n) * c.size + d)] *
               o.key[static_cast<std::size_t>((s * c.groups + n * c.groups / c.heads) * c.size + d)];
    weights.push_back(std::exp(score / std::sqrt(static_cast<double>(c.size))));
    sum += weights.back();
  }
  for (double& weight : weights) weight /= sum;
  return weights;
}

/// Calls visit(start, t, n) for every row of queries.
template <class Visit>
void for_rows(const Case& c, Visit visit) {
  std::int64_t start = 0;
  for (const std::int32_t length : c.lengths) {
    for (std::int64_t t = start; t < start + length; ++t)
      for (std::int64_t n = 0; n < c.heads; ++n) visit(start, t, n);
    start += length;
  }
}

/// Σ cotangent · out, the scalar that is differentiated. The weights are those of `at`: o itself, or held constant.
double contracted(const Case& c, const Truth& o, const Truth& at) {
  double sum = 0;
  for_rows(c, [&](std::int64_t start, std::int64_t t, std::int64_t n) {
    const Numbers weights = weights_of(c, at, start, t, n);
    for (std::int64_t s = start; s <= t; ++s)
      for (std::int64_t d = 0; d < c.size; ++d)
        sum += weights[static_cast<std::size_t>(s - start)] *
               o.value[static_cast<std::size_t>((s * c.groups + n * c.groups / c.heads) * c.size + d)] *
               o.cotangent[static_cast<std::size_t>((t * c.heads + n) * c.size + d)];
  });
  return sum;
}

/// The chain rule through the softmax's Jacobian, pair by pair; of value alone where weights are constants.
Truth oracle(const Case& c, const Truth& o, Linearisation linearisation) {
  Truth gradient{Numbers(o.query.size()), Numbers(o.key.size()), Numbers(o.value.size()), {}};
  for_rows(c, [&](std::int64_t start, std::int64_t t, std::int64_t n) {
    const Numbers weights = weights_of(c, o, start, t, n);
    const auto query = static_cast<std::size_t>((t * c.heads + n) * c.size);
    const auto key = [&](std::size_t j) {
      return static_cast<std::size_t>(((start + static_cast<std::int64_t>(j)) * c.groups + n * c.groups / c.heads) *
                                      c.size);
    };
    const auto size = static_cast<std::size_t>(c.size);
    Numbers to_weights(weights.size());
    double mean = 0;
    for (std::size_t j = 0; j < weights.size(); ++j) {
      for (std::size_t d = 0; d < size; ++d) {
        to_weights[j] += o.cotangent[query + d] * o.value[key(j) + d];
        gradient.value[key(j) + d] += weights[j] * o.cotangent[query + d];
      }
      mean += weights[j] * to_weights[j];
    }
    if (linearisation == Linearisation::kRelp) return;
    for (std::size_t j = 0; j < weights.size(); ++j) {
      const double to_score = weights[j] * (to_weights[j] - mean) / std::sqrt(static_cast<double>(c.size));
      for (std::size_t d = 0; d < size; ++d) {
        gradient.query[query + d] += to_score * o.key[key(j) + d];
        gradient.key[key(j) + d] += to_score * o.query[query + d];
      }
    }
  });
  return gradient;
}

TEST(AttentionBackwardOracle, EqualsFiniteDifferences) {
  for (const Case& c : {Case{2, 1, 3, {4, 0, 2}}, Case{4, 2, 2, {1, 5}}, Case{7, 1, 1, {3}}}) {
    const Truth o = numbers_of(make(c));
    const Truth exact = oracle(c, o, Linearisation::kExact), relp = oracle(c, o, Linearisation::kRelp);
    const auto with = [&](Numbers Truth::* which, const Numbers& numbers) {
      Truth changed = o;
      changed.*which = numbers;
      return changed;
    };
    for (const auto which : {&Truth::query, &Truth::key, &Truth::value}) {
      const testing::Formula free = [&](const Numbers& x) { return contracted(c, with(which, x), with(which, x)); };
      const testing::Formula frozen = [&](const Numbers& x) { return contracted(c, with(which, x), o); };
      for (std::size_t i = 0; i < (o.*which).size(); ++i) {
        ASSERT_NEAR((exact.*which)[i], testing::slope(free, o.*which, i), 1e-8);
        ASSERT_NEAR((relp.*which)[i], testing::slope(frozen, o.*which, i), 1e-8);
      }
    }
  }
}

/// A device and what it multiplies in.
struct Way {
  Device device;
  DType compute;
};

void expect_near(const Tensor& found, const Numbers& truth, double tolerance, const std::string& what) {
  double squares = 0, errors = 0;
  for (std::size_t i = 0; i < truth.size(); ++i) {
    const double number = value(found, static_cast<std::int64_t>(i));
    squares += truth[i] * truth[i];
    errors += std::pow(number - truth[i], 2);
    const double size = std::sqrt(squares / static_cast<double>(i + 1));
    ASSERT_NEAR(number, truth[i], 20 * tolerance * std::max(size, std::abs(truth[i])) + 1e-6) << what << " " << i;
  }
  EXPECT_LE(std::sqrt(errors), tolerance * std::sqrt(squares) + 1e-6) << what;
}

class AttentionBackward : public ::testing::TestWithParam<Way> {
 protected:
  void SetUp() override {
    if (GetParam().device == Device::kCpu) return;
    if (!testing::has_gpu()) GTEST_SKIP() << "no GPU here";
    context_ = Context::cuda(0);
  }
  bool rounds() const { return GetParam().compute == DType::kBFloat16; }
  /// What is left of numbers that this way's products take.
  void round(const Operands& o) const {
    if (!rounds()) return;
    for (const Buffer* buffer : {&o.query, &o.key, &o.value, &o.cotangent})
      for (float& number : buffer->span<float>()) number = round_to_bfloat16(number);
  }
  /// Of the root mean square of a gradient: sums in fp32, or of weights and slopes that are rounded to bf16.
  double tolerance() const { return rounds() ? 0x1p-8 : 1e-5; }
  /// Forward and backward; operands and gradients in host memory.
  void run(const AttentionInput& host, const Tensor& host_cotangent, Linearisation linearisation,
           const AttentionGradient& to) {
    const Device device = GetParam().device;
    const DeviceView query(context_, host.query), key(context_, host.key), value(context_, host.value),
        cotangent(context_, host_cotangent);
    const AttentionInput input{query.tensor(), key.tensor(), value.tensor(), host.offsets, GetParam().compute};
    const Buffer out(device, DType::kFloat32, host.query.shape());
    const Buffer log_sums(device, DType::kFloat32, {host.query.size(0), host.query.size(1)});
    causal_attention(context_, input, out.tensor(), log_sums.tensor());
    const DeviceView to_query(context_, to.query), to_key(context_, to.key), to_value(context_, to.value);
    const bool exact = linearisation == Linearisation::kExact;
    causal_attention_backward(context_, input, {exact ? out.tensor() : Tensor(), log_sums.tensor(), cotangent.tensor()},
                              linearisation, {to_query.tensor(), to_key.tensor(), to_value.tensor()});
    for (const auto& [from, host_tensor] :
         {std::pair(&to_query, to.query), std::pair(&to_key, to.key), std::pair(&to_value, to.value)})
      if (device != Device::kCpu && !host_tensor.empty()) copy(context_, from->tensor(), host_tensor);
    synchronize(context_);
  }
  Gradients run(const Case& c, const Operands& o, Linearisation linearisation) {
    Gradients gradients(c, o.tokens());
    const bool exact = linearisation == Linearisation::kExact;
    run(o.input(), o.cotangent.tensor(), linearisation,
        {exact ? gradients.query.tensor() : Tensor(), exact ? gradients.key.tensor() : Tensor(),
         gradients.value.tensor()});
    return gradients;
  }

  void expect_matches(const Case& c, Linearisation linearisation) {
    const Operands o = make(c);
    round(o);
    const Truth truth = oracle(c, numbers_of(o), linearisation);
    const Gradients found = run(c, o, linearisation);
    const std::string what = fmt::format("H {} h {} T {}", c.heads, c.size, o.tokens());
    expect_near(found.value.tensor(), truth.value, tolerance(), "value " + what);
    if (linearisation == Linearisation::kRelp) return;
    expect_near(found.query.tensor(), truth.query, tolerance(), "query " + what);
    expect_near(found.key.tensor(), truth.key, tolerance(), "key " + what);
  }

  Context context_ = Context::cpu(2);
};

INSTANTIATE_TEST_SUITE_P(Ways, AttentionBackward,
                         ::testing::Values(Way{Device::kCpu, DType::kFloat32}, Way{Device::kCuda, DType::kFloat32},
                                           Way{Device::kCuda, DType::kBFloat16}),
                         [](const ::testing::TestParamInfo<Way>& way) {
                           return std::string(name(way.param.device)) + "_" + name(way.param.compute);
                         });

TEST_P(AttentionBackward, MatchesTheOracle) {
  // Heads of every tiling; several tiles of rows and of keys.
  for (const Case& c :
       {Case{1, 1, 1, {1}}, Case{2, 1, 7, {3, 1, 70}}, Case{7, 1, 16, {65, 64, 63}}, Case{4, 2, 32, {129, 2}},
        Case{14, 2, 8, {40}}, Case{3, 3, 20, {0, 5, 0, 140, 0}}, Case{2, 2, 129, {66}}, Case{2, 1, 96, {100, 3}},
        Case{1, 1, 256, {70}}, Case{1, 1, 64, {200}}, Case{2, 1, 8, {}}, Case{2, 1, 8, {0, 0}}}) {
    expect_matches(c, Linearisation::kExact);
    expect_matches(c, Linearisation::kRelp);
  }
}

TEST_P(AttentionBackward, TakesMoreSequencesThanOneLaunchTakesTiles) {
  expect_matches({2, 1, 4, std::vector<std::int32_t>(330, 2)}, Linearisation::kExact);
}

// One token attends to itself with weight 1: its value's gradient is the cotangents' sum, the others' are 0.
TEST_P(AttentionBackward, OfOneTokenIsExact) {
  const Case c{6, 2, 5, {1, 1}};
  const Operands o = make(c);
  for (std::size_t i = 0; i < 60; ++i) o.cotangent.span<float>()[i] = static_cast<float>(i) / 8;
  for (std::size_t i = 0; i < 20; ++i) o.value.span<float>()[i] = static_cast<float>(i) / 16;
  round(o);
  const Gradients found = run(c, o, Linearisation::kExact);
  for (std::int64_t i = 0; i < 20; ++i) {
    double sum = 0;
    for (std::int64_t n = 0; n < 3; ++n) sum += value(o.cotangent.tensor(), (i / 5 * 3 + n) * 5 + i % 5);
    EXPECT_NEAR(value(found.value.tensor(), i), sum, rounds() ? 0x1p-8 * sum : 1e-6 * sum);
    EXPECT_NEAR(value(found.key.tensor(), i), 0, 1e-5);
  }
  for (std::int64_t i = 0; i < 60; ++i) EXPECT_NEAR(value(found.query.tensor(), i), 0, 1e-5);
}

// Keys of 0: weights are 1 / (t + 1), and with queries of 0 as well no score has a gradient.
TEST_P(AttentionBackward, EqualWeightsGiveDyadicGradients) {
  const Case c{2, 1, 4, {2}};
  const Operands o = make(c);
  for (const Buffer* buffer : {&o.query, &o.key}) std::ranges::fill(buffer->span<float>(), 0.0f);
  for (std::size_t i = 0; i < 16; ++i) o.cotangent.span<float>()[i] = static_cast<float>(i) - 4;
  const Gradients found = run(c, o, Linearisation::kExact);
  for (std::int64_t d = 0; d < 4; ++d) {
    const auto cotangent = [&](std::int64_t t) {
      return value(o.cotangent.tensor(), t * 8 + d) + value(o.cotangent.tensor(), t * 8 + 4 + d);
    };
    EXPECT_NEAR(value(found.value.tensor(), 4 + d), cotangent(1) / 2, 1e-6);
    EXPECT_NEAR(value(found.value.tensor(), d), cotangent(0) + cotangent(1) / 2, 2e-6);
  }
  for (const Buffer* buffer : {&found.query, &found.key})
    for (const float number : buffer->span<float>()) EXPECT_EQ(number, 0.0f);
}

TEST_P(AttentionBackward, StaysFiniteWhereScoresAreHuge) {
  const Case c{2, 1, 16, {150}};
  const Operands o = make(c, -300, 300);
  const Gradients found = run(c, o, Linearisation::kExact);
  for (const Buffer* buffer : {&found.query, &found.key, &found.value})
    for (const float number : buffer->span<float>()) ASSERT_TRUE(std::isfinite(number));
}

// Each sequence alone gives the bits it has inside the pack.
TEST_P(AttentionBackward, BitsDependOnTheOwnSequenceOnly) {
  for (const std::int64_t size : {24, 64}) {
    const Case c{3, 1, size, {100, 1, 77, 130}};
    const Operands o = make(c);
    const Gradients all = run(c, o, Linearisation::kExact);
    std::int64_t start = 0;
    for (const std::int32_t length : c.lengths) {
      const auto part = [&](const Buffer& buffer) { return buffer.tensor().rows(start, start + length); };
      const Buffer offsets = make_offsets({length});
      const Gradients alone(c, length);
      run({part(o.query), part(o.key), part(o.value), offsets.tensor()}, part(o.cotangent), Linearisation::kExact,
          {alone.query.tensor(), alone.key.tensor(), alone.value.tensor()});
      EXPECT_TRUE(same_bits(part(all.query), alone.query.tensor())) << length;
      EXPECT_TRUE(same_bits(part(all.key), alone.key.tensor())) << length;
      EXPECT_TRUE(same_bits(part(all.value), alone.value.tensor())) << length;
      start += length;
    }
  }
}

TEST_P(AttentionBackward, RelpGivesTheExactValueGradientAndAnotherRunTheSameBits) {
  const Case c{4, 2, 40, {90, 33}};
  const Operands o = make(c);
  const Gradients exact = run(c, o, Linearisation::kExact), again = run(c, o, Linearisation::kExact),
                  relp = run(c, o, Linearisation::kRelp);
  EXPECT_TRUE(same_bits(exact.value.tensor(), relp.value.tensor()));
  EXPECT_TRUE(same_bits(exact.value.tensor(), again.value.tensor()));
  EXPECT_TRUE(same_bits(exact.key.tensor(), again.key.tensor()));
  EXPECT_TRUE(same_bits(exact.query.tensor(), again.query.tensor()));
}

// The forward's sums of exponentials, and that asking for them changes nothing.
TEST_P(AttentionBackward, LogSumsAreThoseOfTheFormula) {
  const Case c{4, 2, 24, {70, 3}};
  const Operands o = make(c);
  round(o);
  const DeviceView query(context_, o.query.tensor()), key(context_, o.key.tensor()), values(context_, o.value.tensor());
  const AttentionInput input{query.tensor(), key.tensor(), values.tensor(), o.offsets.tensor(), GetParam().compute};
  const Device device = GetParam().device;
  const Buffer out(device, DType::kFloat32, {73, 4, 24}), plain(device, DType::kFloat32, {73, 4, 24});
  const Buffer log_sums(device, DType::kFloat32, {73, 4});
  causal_attention(context_, input, out.tensor(), log_sums.tensor());
  causal_attention(context_, input, plain.tensor());
  EXPECT_EQ(on_host<float>(context_, out.tensor()), on_host<float>(context_, plain.tensor()));
  const std::vector<float> found = on_host<float>(context_, log_sums.tensor());
  const Truth numbers = numbers_of(o);
  for_rows(c, [&](std::int64_t start, std::int64_t t, std::int64_t n) {
    // The first key's weight is e^(its score − log sum).
    double score = 0;
    for (std::int64_t d = 0; d < 24; ++d)
      score += numbers.query[static_cast<std::size_t>((t * 4 + n) * 24 + d)] *
               numbers.key[static_cast<std::size_t>((start * 2 + n / 2) * 24 + d)];
    const double truth = score / std::sqrt(24.0) - std::log(weights_of(c, numbers, start, t, n)[0]);
    ASSERT_NEAR(static_cast<double>(found[static_cast<std::size_t>(t * 4 + n)]), truth, 3e-6) << t << " " << n;
  });
}

TEST(AttentionBackwardOnTheCpu, BitsDoNotDependOnThreads) {
  const Case c{6, 2, 24, {200, 17, 130, 0, 1}};
  const Operands o = make(c);
  const Buffer out(Device::kCpu, DType::kFloat32, o.query.tensor().shape());
  const Buffer log_sums(Device::kCpu, DType::kFloat32, {o.tokens(), c.heads});
  const AttentionResult result{out.tensor(), log_sums.tensor(), o.cotangent.tensor()};
  const Gradients first(c, o.tokens());
  Context one = Context::cpu(1);
  causal_attention(one, o.input(), out.tensor(), log_sums.tensor());
  causal_attention_backward(one, o.input(), result, Linearisation::kExact,
                            {first.query.tensor(), first.key.tensor(), first.value.tensor()});
  for (const int threads : {2, 3, 4}) {
    Context context = Context::cpu(threads);
    const Gradients other(c, o.tokens());
    causal_attention_backward(context, o.input(DType::kBFloat16), result, Linearisation::kExact,
                              {other.query.tensor(), other.key.tensor(), other.value.tensor()});
    EXPECT_TRUE(same_bits(first.query.tensor(), other.query.tensor())) << threads;
    EXPECT_TRUE(same_bits(first.key.tensor(), other.key.tensor())) << threads;
    EXPECT_TRUE(same_bits(first.value.tensor(), other.value.tensor())) << threads;
  }
}

TEST(AttentionBackwardOnTheCpu, WrongInputIsRefused) {
  Context context = Context::cpu(1);
  const Case c{4, 2, 8, {5, 6}};
  const Operands o = make(c);
  const Gradients g(c, 11);
  const Buffer log_sums(Device::kCpu, DType::kFloat32, {11, 4}), wrong(Device::kCpu, DType::kFloat32, {11, 2});
  const Tensor query = o.query.tensor(), cotangent = o.cotangent.tensor();
  const AttentionGradient all{g.query.tensor(), g.key.tensor(), g.value.tensor()};
  const auto refused = [&](const AttentionResult& result, Linearisation linearisation, const AttentionGradient& to) {
    EXPECT_THROW(causal_attention_backward(context, o.input(), result, linearisation, to), ShapeError);
  };
  refused({query, wrong.tensor(), cotangent}, Linearisation::kExact, all);
  refused({query, log_sums.tensor(), o.key.tensor()}, Linearisation::kExact, all);
  refused({Tensor(), log_sums.tensor(), cotangent}, Linearisation::kExact, all);
  refused({query, log_sums.tensor(), cotangent}, Linearisation::kRelp, all);
  refused({query, log_sums.tensor(), cotangent}, Linearisation::kExact, {Tensor(), g.key.tensor(), g.value.tensor()});
  o.offsets.span<std::int32_t>()[1] = 12;
  refused({query, log_sums.tensor(), cotangent}, Linearisation::kExact, all);
}

}  // namespace
}  // namespace tadapt
