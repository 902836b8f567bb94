// matmul and its backward against double loops, and the bits they promise.
#include "kernels/matmul.h"

#include <algorithm>
#include <cmath>

#include "tests/kernels/finite_difference.h"
#include "tests/kernels/product_oracle.h"

namespace tadapt {
namespace {
using testing::allowance;
using testing::operand;
using testing::rounded;
using testing::same_bits;
using testing::uniform;
using testing::value;

Buffer make_weights(std::int64_t n, std::int64_t k, Layout layout, DType dtype) {
  return layout == Layout::kOutputInput ? uniform(dtype, {n, k}, 1) : uniform(dtype, {k, n}, 1);
}

struct Case {
  std::int64_t t, n, k;
  DType x = DType::kFloat32;
  DType weights = DType::kFloat32;
  DType compute = DType::kFloat32;
  Layout layout = Layout::kOutputInput;
  Epilogue epilogue = Epilogue::kNone;
};

void expect_matches_oracle(const Case& c) {
  SCOPED_TRACE(fmt::format("T {} N {} K {} x {} weights {} compute {} layout {} epilogue {}", c.t, c.n, c.k, name(c.x),
                           name(c.weights), name(c.compute), static_cast<int>(c.layout), static_cast<int>(c.epilogue)));
  Context context = Context::cpu(2);
  const Buffer x = uniform(c.x, {c.t, c.k}, 2);
  const Buffer w = make_weights(c.n, c.k, c.layout, c.weights);
  const Buffer bias = uniform(DType::kFloat32, {c.n}, 3);
  const Buffer y(Device::kCpu, DType::kFloat32, {c.t, c.n});
  const PackedWeights packed = pack_weights(context, w.tensor(), c.layout, c.compute);
  EXPECT_EQ(packed.outputs(), c.n);
  EXPECT_EQ(packed.inputs(), c.k);
  EXPECT_EQ(packed.dtype(), c.compute);
  EXPECT_GE(packed.bytes(), static_cast<std::size_t>(c.n * c.k) * bytes_per_element(c.compute));
  matmul(context, x.tensor(), packed, bias.tensor(), c.epilogue, y.tensor());
  const std::vector<double> xs = operand(x.tensor(), c.compute), ws = operand(w.tensor(), c.compute);
  const bool by_output = c.layout == Layout::kOutputInput;
  for (std::int64_t t = 0; t < c.t; ++t) {
    for (std::int64_t n = 0; n < c.n; ++n) {
      double sum = value(bias.tensor(), n), magnitude = std::abs(sum);
      for (std::int64_t k = 0; k < c.k; ++k) {
        const double term = xs[static_cast<std::size_t>(t * c.k + k)] *
                            ws[static_cast<std::size_t>(by_output ? n * c.k + k : k * c.n + n)];
        sum += term;
        magnitude += std::abs(term);
      }
      if (c.epilogue == Epilogue::kRelu) sum = std::max(sum, 0.0);
      ASSERT_NEAR(value(y.tensor(), t * c.n + n), sum, allowance(c.k, magnitude)) << "row " << t << " output " << n;
    }
  }
}

TEST(Matmul, MatchesTheOracleInEveryCombinationOfTypes) {
  for (const DType x : {DType::kFloat32, DType::kBFloat16}) {
    for (const DType weights : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
      for (const DType compute : {DType::kFloat32, DType::kBFloat16}) {
        for (const Layout layout : {Layout::kOutputInput, Layout::kInputOutput}) {
          for (const Epilogue epilogue : {Epilogue::kNone, Epilogue::kRelu}) {
            expect_matches_oracle({70, 33, 37, x, weights, compute, layout, epilogue});
          }
        }
      }
    }
  }
}

TEST(Matmul, MatchesTheOracleOverOddShapes) {
  for (const DType compute : {DType::kFloat32, DType::kBFloat16}) {
    for (const auto& [t, n, k] : std::vector<std::array<std::int64_t, 3>>{{1, 1, 1},
                                                                          {1, 5, 7},
                                                                          {3, 1, 64},
                                                                          {129, 7, 1},
                                                                          {64, 64, 64},
                                                                          {65, 2049, 3},
                                                                          {130, 4100, 17},
                                                                          {2, 40, 1500},
                                                                          {5, 48, 131},
                                                                          {200, 16, 896}}) {
      for (const Layout layout : {Layout::kOutputInput, Layout::kInputOutput}) {
        expect_matches_oracle({.t = t, .n = n, .k = k, .compute = compute, .layout = layout});
      }
    }
  }
}

TEST(Matmul, NoRowsIsFine) {
  Context context = Context::cpu(2);
  const Buffer w = uniform(DType::kFloat32, {4, 3}, 1);
  const PackedWeights packed = pack_weights(context, w.tensor(), Layout::kOutputInput, DType::kFloat32);
  matmul(context, Tensor(nullptr, DType::kFloat32, {0, 3}), packed, {}, Epilogue::kNone,
         Tensor(nullptr, DType::kFloat32, {0, 4}));
}

// ⟨dy, x · Wᵀ⟩ changes by dx = dy · W. Of integers: slopes are too.
TEST(Matmul, BackwardIsTheProductWithTheSameWeightsTheOtherWay) {
  const auto dyadic = [](Shape shape, std::uint64_t sample) {
    Buffer buffer = uniform(DType::kFloat32, shape, sample, -8, 8);
    for (float& number : buffer.span<float>()) number = std::round(number);
    return buffer;
  };
  for (const DType compute : {DType::kFloat32, DType::kBFloat16}) {
    for (const auto& [t, n, k] : std::vector<std::array<std::int64_t, 3>>{{0, 3, 5}, {1, 1, 1}, {7, 33, 70}}) {
      Context context = Context::cpu(2);
      for (const Layout layout : {Layout::kOutputInput, Layout::kInputOutput}) {
        const bool by_output = layout == Layout::kOutputInput;
        const Buffer w = dyadic(by_output ? Shape{n, k} : Shape{k, n}, 1), dy = dyadic({t, n}, 2);
        const Buffer dx(Device::kCpu, DType::kFloat32, {t, k});
        PackedWeights packed =
            pack_weights(context, dyadic(w.tensor().shape(), 3).tensor(), layout, compute, Directions::kBoth);
        repack_weights(context, w.tensor(), packed);
        matmul_backward(context, dy.tensor(), packed, dx.tensor());
        for (std::int64_t i = 0; i < t * k; ++i) {
          const testing::Formula formula = [&](const std::vector<double>& x) {
            double sum = 0;
            for (std::int64_t j = 0; j < n; ++j)
              sum += value(dy.tensor(), i / k * n + j) * x[0] *
                     value(w.tensor(), by_output ? j * k + i % k : i % k * n + j);
            return sum;
          };
          ASSERT_EQ(value(dx.tensor(), i), std::round(testing::slope(formula, {0}, 0)));
        }
      }
    }
  }
}

TEST(Matmul, WithoutBiasEqualsZeroBias) {
  Context context = Context::cpu(1);
  const Buffer x = uniform(DType::kFloat32, {5, 31}, 1), w = uniform(DType::kFloat32, {9, 31}, 2);
  const Buffer zero(Device::kCpu, DType::kFloat32, {9});
  const Buffer a(Device::kCpu, DType::kFloat32, {5, 9}), b(Device::kCpu, DType::kFloat32, {5, 9});
  const PackedWeights packed = pack_weights(context, w.tensor(), Layout::kOutputInput, DType::kFloat32);
  matmul(context, x.tensor(), packed, {}, Epilogue::kNone, a.tensor());
  matmul(context, x.tensor(), packed, zero.tensor(), Epilogue::kNone, b.tensor());
  EXPECT_TRUE(same_bits(a.tensor(), b.tensor()));
}

/// Small integers over a power of two: every partial sum is exact, in any order and either type.
Buffer dyadic(Shape shape, std::uint64_t sample) {
  Buffer buffer = uniform(DType::kFloat32, shape, sample, -8.0f, 8.0f);
  for (float& number : buffer.span<float>()) number = std::floor(number) / 4.0f;
  return buffer;
}

TEST(Matmul, DyadicOperandsAreExact) {
  Context context = Context::cpu(2);
  const std::int64_t t = 131, n = 70, k = 200;
  const Buffer x = dyadic({t, k}, 1), w = dyadic({n, k}, 2), y(Device::kCpu, DType::kFloat32, {t, n});
  const std::vector<double> xs = operand(x.tensor(), DType::kFloat32), ws = operand(w.tensor(), DType::kFloat32);
  for (const DType compute : {DType::kFloat32, DType::kBFloat16}) {
    const PackedWeights packed = pack_weights(context, w.tensor(), Layout::kOutputInput, compute);
    matmul(context, x.tensor(), packed, {}, Epilogue::kNone, y.tensor());
    for (std::int64_t i = 0; i < t * n; ++i) {
      double sum = 0;
      for (std::int64_t j = 0; j < k; ++j) {
        sum += xs[static_cast<std::size_t>(i / n * k + j)] * ws[static_cast<std::size_t>(i % n * k + j)];
      }
      ASSERT_EQ(value(y.tensor(), i), sum) << name(compute) << " at " << i;
    }
  }
}

// One weight 1, the others 0: y is x as the product rounded it, and with x = 1 the packed weight.
TEST(Matmul, OperandsAreRoundedToNearestEven) {
  Context context = Context::cpu(1);
  const std::vector<float> hard = {0x1.01p0f,  0x1.03p0f,     0x1.010002p0f, 0x1.00fffep0f,  -0x1.01p0f, -0x1.03p0f,
                                   0x1.ffp10f, 0x1.fefffep3f, 3.0e38f,       -0x1.810001p4f, 1e-30f,     0.0f};
  const auto count = static_cast<std::int64_t>(hard.size());
  Buffer numbers(Device::kCpu, DType::kFloat32, {count, 1}), ones(Device::kCpu, DType::kFloat32, {count, 1});
  std::copy(hard.begin(), hard.end(), numbers.span<float>().begin());
  std::fill(ones.span<float>().begin(), ones.span<float>().end(), 1.0f);
  const Buffer y(Device::kCpu, DType::kFloat32, {count, count});
  for (const bool as_x : {true, false}) {
    const Buffer& x = as_x ? numbers : ones;
    const Buffer& w = as_x ? ones : numbers;
    const PackedWeights packed = pack_weights(context, w.tensor(), Layout::kOutputInput, DType::kBFloat16);
    matmul(context, x.tensor(), packed, {}, Epilogue::kNone, y.tensor());
    for (std::int64_t i = 0; i < count; ++i) {
      EXPECT_EQ(value(y.tensor(), i * count + i), rounded(hard[static_cast<std::size_t>(i)], DType::kBFloat16))
          << (as_x ? "x " : "weight ") << i;
    }
  }
}

struct BitCase {
  std::int64_t n, k;
};
const std::vector<BitCase> kBitCases = {{512, 128}, {37, 7},    {1, 64},    {96, 1},      {100, 515},
                                        {130, 300}, {48, 2048}, {2300, 40}, {1025, 1024}, {40, 3584}};

/// The rows of x, computed one by one, each as the first row of a product of its own.
void expect_rows_depend_on_themselves(const BitCase& c, DType x_type, DType compute) {
  SCOPED_TRACE(fmt::format("N {} K {} x {} compute {}", c.n, c.k, name(x_type), name(compute)));
  const std::int64_t t = 200;
  Context one = Context::cpu(1);
  const Buffer x = uniform(x_type, {t, c.k}, 4), w = uniform(DType::kFloat32, {c.n, c.k}, 5);
  const Buffer bias = uniform(DType::kFloat32, {c.n}, 6);
  const Buffer whole(Device::kCpu, DType::kFloat32, {t, c.n}), other(Device::kCpu, DType::kFloat32, {t, c.n});
  const PackedWeights packed = pack_weights(one, w.tensor(), Layout::kOutputInput, compute);
  const auto run = [&](Context& context, std::int64_t begin, std::int64_t end) {
    matmul(context, x.tensor().rows(begin, end), packed, bias.tensor(), Epilogue::kRelu,
           other.tensor().rows(begin, end));
  };
  matmul(one, x.tensor(), packed, bias.tensor(), Epilogue::kRelu, whole.tensor());
  for (const int threads : {2, 3, 4}) {
    Context context = Context::cpu(threads);
    std::memset(other.data(), 0xff, other.bytes());
    run(context, 0, t);
    EXPECT_TRUE(same_bits(whole.tensor(), other.tensor())) << threads << " threads";
  }
  Context two = Context::cpu(2);
  for (const std::int64_t step : {9, 64, 127, 129, 150}) {
    std::memset(other.data(), 0xff, other.bytes());
    for (std::int64_t begin = 0; begin < t; begin += step) run(two, begin, std::min(t, begin + step));
    EXPECT_TRUE(same_bits(whole.tensor(), other.tensor())) << "pieces of " << step;
  }
}

TEST(Matmul, BitsOfARowDoNotDependOnThreadsPositionOrSplit) {
  for (const BitCase& c : kBitCases) {
    expect_rows_depend_on_themselves(c, DType::kFloat32, DType::kFloat32);
    expect_rows_depend_on_themselves(c, DType::kFloat32, DType::kBFloat16);
    expect_rows_depend_on_themselves(c, DType::kBFloat16, DType::kBFloat16);
  }
}

TEST(Matmul, BitsOfARowAreTheSameOneRowAtATime) {
  for (const DType compute : {DType::kFloat32, DType::kBFloat16}) {
    for (const BitCase& c : {BitCase{65, 33}, BitCase{512, 128}}) {
      Context context = Context::cpu(2);
      const Buffer x = uniform(DType::kFloat32, {130, c.k}, 4), w = uniform(DType::kFloat32, {c.n, c.k}, 5);
      const Buffer whole(Device::kCpu, DType::kFloat32, {130, c.n}), row(Device::kCpu, DType::kFloat32, {1, c.n});
      const PackedWeights packed = pack_weights(context, w.tensor(), Layout::kOutputInput, compute);
      matmul(context, x.tensor(), packed, {}, Epilogue::kNone, whole.tensor());
      for (std::int64_t t = 0; t < 130; ++t) {
        matmul(context, x.tensor().rows(t, t + 1), packed, {}, Epilogue::kNone, row.tensor());
        ASSERT_TRUE(same_bits(whole.tensor().rows(t, t + 1), row.tensor())) << t;
      }
    }
  }
}

TEST(Matmul, EqualRowsGiveEqualBitsWhereverTheyStand) {
  for (const DType compute : {DType::kFloat32, DType::kBFloat16}) {
    for (const BitCase& c : kBitCases) {
      Context context = Context::cpu(2);
      const std::int64_t t = 259;
      Buffer x = uniform(DType::kFloat32, {t, c.k}, 4);
      for (std::int64_t row = 1; row < t; ++row) {
        std::memcpy(x.tensor().rows(row, row + 1).data(), x.data(), static_cast<std::size_t>(c.k) * sizeof(float));
      }
      const Buffer w = uniform(DType::kFloat32, {c.n, c.k}, 5), y(Device::kCpu, DType::kFloat32, {t, c.n});
      const PackedWeights packed = pack_weights(context, w.tensor(), Layout::kOutputInput, compute);
      matmul(context, x.tensor(), packed, {}, Epilogue::kNone, y.tensor());
      for (std::int64_t row = 1; row < t; ++row) {
        ASSERT_TRUE(same_bits(y.tensor().rows(0, 1), y.tensor().rows(row, row + 1)))
            << "row " << row << " N " << c.n << " K " << c.k << " " << name(compute);
      }
    }
  }
}

TEST(Matmul, RepackingEqualsPackingAnew) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
    for (const Layout layout : {Layout::kOutputInput, Layout::kInputOutput}) {
      Context context = Context::cpu(2);
      const Buffer x = uniform(DType::kFloat32, {70, 50}, 1);
      const Buffer first = uniform(dtype, {50, 50}, 2), second = uniform(dtype, {50, 50}, 3);
      const Buffer a(Device::kCpu, DType::kFloat32, {70, 50}), b(Device::kCpu, DType::kFloat32, {70, 50});
      PackedWeights reused = pack_weights(context, first.tensor(), layout, DType::kBFloat16);
      repack_weights(context, second.tensor(), reused);
      const PackedWeights fresh = pack_weights(context, second.tensor(), layout, DType::kBFloat16);
      matmul(context, x.tensor(), reused, {}, Epilogue::kNone, a.tensor());
      matmul(context, x.tensor(), fresh, {}, Epilogue::kNone, b.tensor());
      EXPECT_TRUE(same_bits(a.tensor(), b.tensor()));
    }
  }
}

TEST(Matmul, WrongShapesAreRefusedByName) {
  Context context = Context::cpu(1);
  const Buffer w = uniform(DType::kFloat32, {4, 3}, 1), x = uniform(DType::kFloat32, {2, 3}, 1);
  const Buffer y(Device::kCpu, DType::kFloat32, {2, 4}), five(Device::kCpu, DType::kFloat32, {5});
  PackedWeights packed = pack_weights(context, w.tensor(), Layout::kOutputInput, DType::kFloat32);
  const auto refused = [](const auto& call, const char* part) {
    try {
      call();
      ADD_FAILURE() << "not refused: " << part;
    } catch (const ShapeError& error) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  };
  refused([&] { matmul(context, y.tensor(), packed, {}, Epilogue::kNone, y.tensor()); }, "matmul: x");
  refused([&] { matmul(context, x.tensor(), packed, five.tensor(), Epilogue::kNone, y.tensor()); }, "matmul: bias");
  refused([&] { matmul(context, x.tensor(), packed, {}, Epilogue::kNone, x.tensor()); }, "matmul: y");
  refused([&] { matmul(context, x.tensor(), PackedWeights(), {}, Epilogue::kNone, y.tensor()); }, "nothing");
  refused([&] { pack_weights(context, five.tensor(), Layout::kOutputInput, DType::kFloat32); }, "weights");
  refused([&] { pack_weights(context, w.tensor(), Layout::kOutputInput, DType::kFloat16); }, "float16");
  refused(
      [&] { pack_weights(context, Tensor(nullptr, DType::kFloat32, {0, 3}), Layout::kOutputInput, DType::kFloat32); },
      "empty");
  refused([&] { matmul_backward(context, x.tensor(), packed, x.tensor()); }, "both directions");
  refused([&] { repack_weights(context, x.tensor(), packed); }, "repack_weights: weights");
  const Buffer half = uniform(DType::kFloat16, {4, 3}, 1);
  refused([&] { repack_weights(context, half.tensor(), packed); }, "packed from float32");
  refused([&] { weight_gradient(context, x.tensor(), y.tensor(), DType::kFloat32, w.tensor()); }, "gradient");
  refused([&] { weight_gradient(context, x.tensor(), w.tensor(), DType::kFloat32, w.tensor()); }, "right");
}

}  // namespace
}  // namespace tadapt
