// Every op on every other device this build has, against the CPU's: the CPU's own results are tested against oracles.
#include <cmath>

#include "kernels/attention.h"
#include "kernels/core/event.h"
#include "kernels/losses.h"
#include "kernels/matmul.h"
#include "kernels/norm.h"
#include "kernels/optim.h"
#include "kernels/pointwise.h"
#include "kernels/rope.h"
#include "kernels/sparse.h"
#include "kernels/uniform.h"
#include "tests/kernels/device_cases.h"

namespace tadapt {
namespace {
using testing::activations;
using testing::expect_gpu_equals_cpu;
using testing::has_gpu;
using testing::ints;
using testing::kSums;
using testing::Mirror;
using testing::OpCase;
using testing::Operands;
using testing::operands;
using testing::room;
using testing::shape_name;
using testing::uniform;

void add_elementwise(std::vector<OpCase>& cases, std::int64_t t, std::int64_t n) {
  const auto three = [=] {
    return operands(uniform(DType::kFloat32, {t, n}, 1, -30, 30), uniform(DType::kFloat32, {t, n}, 2),
                    room(DType::kFloat32, {t, n}));
  };
  cases.push_back({"swiglu" + shape_name(t, n), three,
                   [](Context& c, Mirror& at, const Operands& o) { swiglu(c, at(o[0]), at(o[1]), at(o[2])); }});
  cases.push_back({"uniform" + shape_name(t, n),
                   [=] { return operands(room(DType::kFloat32, {t * n}), room(DType::kBFloat16, {t * n})); },
                   [](Context& c, Mirror& at, const Operands& o) {
                     const RandomStream stream(3, RandomPurpose::kTest, 1, 2);
                     uniform(c, stream, 0.3f, at(o[0]));
                     uniform(c, stream, 0.3f, at(o[1]));
                   }});
  cases.push_back({"add_to" + shape_name(t, n), three,
                   [](Context& c, Mirror& at, const Operands& o) { add_to(c, at(o[0]), at(o[1])); }});
  cases.push_back({"subtract_from" + shape_name(t, n), three,
                   [](Context& c, Mirror& at, const Operands& o) { subtract_from(c, at(o[0]), at(o[1])); }});
  for (const DType from : {DType::kFloat32, DType::kBFloat16, DType::kFloat16})
    for (const DType to : {DType::kFloat32, DType::kBFloat16, DType::kFloat16})
      cases.push_back({fmt::format("convert_{}_{}{}", name(from), name(to), shape_name(t, n)),
                       [=] { return operands(uniform(from, {t, n}, 1, -900, 900), room(to, {t, n})); },
                       [](Context& c, Mirror& at, const Operands& o) { convert(c, at(o[0]), at(o[1])); }});
  cases.push_back({"rms_norm" + shape_name(t, n),
                   [=] {
                     return operands(uniform(DType::kFloat32, {t, n}, 1), uniform(DType::kFloat32, {n}, 2),
                                     room(DType::kFloat32, {t, n}));
                   },
                   [](Context& c, Mirror& at, const Operands& o) { rms_norm(c, at(o[0]), at(o[1]), 1e-6f, at(o[2])); },
                   2e-7});
  cases.push_back({"squared_error" + shape_name(t, n),
                   [=] {
                     return operands(uniform(DType::kFloat32, {t, n}, 1), uniform(DType::kBFloat16, {t, n}, 2),
                                     room(DType::kFloat32, {t, n}), room(DType::kFloat64, {t}),
                                     room(DType::kFloat64, {t}), room(DType::kFloat64, {1}));
                   },
                   [](Context& c, Mirror& at, const Operands& o) {
                     squared_error(c, at(o[0]), at(o[1]), 0.5f, at(o[2]), at(o[3]));
                     row_square_norms(c, at(o[1]), at(o[4]));
                     row_total(c, at(o[3]), at(o[5]));
                   },
                   1e-12});
  cases.push_back({"token_kl" + shape_name(t, n),
                   [=] {
                     return operands(uniform(DType::kFloat32, {t, n}, 1, -9, 9),
                                     uniform(DType::kFloat32, {t, n}, 2, -9, 9), room(DType::kFloat64, {t}),
                                     room(DType::kInt32, {t}), room(DType::kInt32, {t}), room(DType::kFloat32, {t}));
                   },
                   [](Context& c, Mirror& at, const Operands& o) {
                     token_kl(c, at(o[0]), at(o[1]), {at(o[2]), at(o[3]), at(o[4]), at(o[5])});
                   },
                   1e-6});
}

void add_features(std::vector<OpCase>& cases, std::int64_t t, std::int64_t f, std::int64_t d, float density) {
  const std::string size = fmt::format("_{}x{}x{}_{}", t, f, d, static_cast<int>(density * 100));
  cases.push_back({"features" + size,
                   [=] {
                     return operands(activations(t, f, density), uniform(DType::kFloat32, {f, d}, 2),
                                     room(DType::kFloat32, {f}), uniform(DType::kFloat32, {t, f}, 4),
                                     uniform(DType::kFloat32, {f, d}, 5), room(DType::kFloat32, {f}),
                                     room(DType::kFloat32, {f}), room(DType::kInt32, {t}), room(DType::kFloat64, {1}));
                   },
                   [](Context& c, Mirror& at, const Operands& o) {
                     decoder_norms(c, at(o[1]), at(o[2]));
                     feature_gradient(c, at(o[0]), at(o[2]), 0.3f, at(o[3]));
                     column_sums(c, at(o[0]), at(o[5]));
                     sparsity_decoder_gradient(c, at(o[5]), at(o[1]), at(o[2]), 0.3f, at(o[4]));
                     active_counts(c, at(o[0]), at(o[6]));
                     l0(c, at(o[0]), at(o[7]));
                     weighted_activations(c, at(o[5]), at(o[2]), at(o[8]));
                   },
                   2e-7});
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    cases.push_back({"sparse_" + std::string(name(dtype)) + size,
                     [=] {
                       const std::int64_t most = std::max<std::int64_t>(1, t * f);
                       return operands(
                           activations(t, f, density), uniform(dtype, {f, d}, 2), uniform(dtype, {t, d}, 3),
                           uniform(DType::kFloat32, {d}, 4), uniform(DType::kFloat32, {f}, 5, 0, 2),
                           room(DType::kInt32, {t + 1}), room(DType::kInt32, {most}), room(DType::kFloat32, {most}),
                           room(DType::kInt32, {f + 1}), room(DType::kInt32, {most}), room(DType::kInt32, {most}),
                           room(DType::kFloat32, {t, d}), room(DType::kFloat32, {most}), room(DType::kFloat32, {f, d}),
                           room(DType::kFloat32, {f}), room(DType::kFloat32, {f}), uniform(DType::kFloat32, {t, d}, 6));
                     },
                     [dtype](Context& c, Mirror& at, const Operands& o) {
                       const std::int64_t pairs = count_pairs(c, at(o[0]), at(o[5]));
                       const auto some = [&](const Buffer& buffer) { return at(buffer).rows(0, pairs); };
                       const SparseFeatures by_token{at(o[5]), some(o[6]), some(o[7])};
                       const FeatureMajorPairs by_feature{at(o[8]), some(o[9]), some(o[10])};
                       gather_pairs(c, at(o[0]), by_token);
                       sort_by_feature(c, by_token, by_feature);
                       sparse_decode(c, by_token, at(o[1]), at(o[3]), at(o[11]));
                       sparse_feature_gradient(c, by_token, at(o[1]), at(o[2]), {at(o[4]), 0.3f}, some(o[12]));
                       sparse_weight_gradient(c, by_feature, by_token.activations, at(o[2]), dtype, at(o[13]));
                       pair_sums(c, by_feature, some(o[12]), at(o[14]));
                       pair_counts(c, by_feature, at(o[15]));
                       sparse_input_gradient(c, by_token, at(o[1]), at(o[16]));
                     },
                     kSums});
  }
}

void add_products(std::vector<OpCase>& cases, std::int64_t t, std::int64_t k, std::int64_t n) {
  for (const DType compute : {DType::kFloat32, DType::kBFloat16}) {
    for (const Layout layout : {Layout::kOutputInput, Layout::kInputOutput}) {
      const std::string which = fmt::format("_{}_{}_{}x{}x{}", name(compute), static_cast<int>(layout), t, k, n);
      cases.push_back({"matmul" + which,
                       [=] {
                         const Shape shape = layout == Layout::kOutputInput ? Shape{n, k} : Shape{k, n};
                         return operands(uniform(DType::kFloat32, {t, k}, 1), uniform(DType::kFloat32, shape, 2),
                                         uniform(DType::kFloat32, {n}, 3), room(DType::kFloat32, {t, n}),
                                         room(DType::kFloat32, {t, n}));
                       },
                       [=](Context& c, Mirror& at, const Operands& o) {
                         PackedWeights packed = pack_weights(c, at(o[1]), layout, compute);
                         repack_weights(c, at(o[1]), packed);
                         matmul(c, at(o[0]), packed, at(o[2]), Epilogue::kRelu, at(o[3]));
                         matmul(c, at(o[0]), packed, Tensor(), Epilogue::kNone, at(o[4]));
                       },
                       kSums});
    }
    cases.push_back(
        {fmt::format("weight_gradient_{}_{}x{}x{}", name(compute), t, k, n),
         [=] {
           return operands(uniform(DType::kFloat32, {t, n}, 1), uniform(DType::kBFloat16, {t, k}, 2),
                           room(DType::kFloat32, {n, k}));
         },
         [=](Context& c, Mirror& at, const Operands& o) { weight_gradient(c, at(o[0]), at(o[1]), compute, at(o[2])); },
         kSums});
  }
}

void add_decoder(std::vector<OpCase>& cases) {
  struct Heads {
    std::int64_t heads, groups, size;
  };
  const std::vector<std::int32_t> offsets = {0, 37, 37, 38, 111};
  for (const Heads& h : {Heads{4, 2, 32}, Heads{7, 1, 20}, Heads{2, 2, 128}, Heads{1, 1, 6}}) {
    const std::int64_t t = offsets.back();
    const std::string which = fmt::format("_{}_{}_{}", h.heads, h.groups, h.size);
    cases.push_back({"causal_attention" + which,
                     [=] {
                       return operands(uniform(DType::kFloat32, {t, h.heads, h.size}, 1, -3, 3),
                                       uniform(DType::kFloat32, {t, h.groups, h.size}, 2, -3, 3),
                                       uniform(DType::kFloat32, {t, h.groups, h.size}, 3), ints(offsets),
                                       room(DType::kFloat32, {t, h.heads, h.size}));
                     },
                     [](Context& c, Mirror& at, const Operands& o) {
                       causal_attention(c, {at(o[0]), at(o[1]), at(o[2]), o[3].tensor()}, at(o[4]));
                     },
                     1e-5});
    cases.push_back(
        {"rope" + which,
         [=] { return operands(uniform(DType::kFloat32, {5, h.heads, h.size}, 1), ints({0, 1, 77, 9999, 131071})); },
         [](Context& c, Mirror& at, const Operands& o) { rope(c, at(o[0]), at(o[1]), 10000.0); }, 3e-7});
  }
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16})
    cases.push_back(
        {std::string("embed_") + name(dtype),
         [=] { return operands(ints({3, 0, 10, 3}), uniform(dtype, {11, 70}, 1), room(DType::kFloat32, {4, 70})); },
         [](Context& c, Mirror& at, const Operands& o) { embed(c, at(o[0]), at(o[1]), at(o[2])); }});
}

void add_optimiser(std::vector<OpCase>& cases, std::int64_t n) {
  for (const DType working : {DType::kFloat32, DType::kBFloat16})
    cases.push_back({fmt::format("adamw_{}_{}", name(working), n),
                     [=] {
                       return operands(uniform(DType::kFloat32, {n}, 1), uniform(DType::kFloat32, {n}, 2),
                                       uniform(DType::kFloat32, {n}, 3, 0, 1), uniform(DType::kFloat32, {n}, 4),
                                       room(working, {n}), room(DType::kFloat64, {sum_blocks(n)}));
                     },
                     [](Context& c, Mirror& at, const Operands& o) {
                       block_square_sums(c, at(o[3]), at(o[5]));
                       add_with_square_sums(c, at(o[2]), at(o[3]), at(o[5]));
                       adamw(c, {at(o[0]), at(o[1]), at(o[2]), at(o[3]), at(o[4])},
                             {.learning_rate = 1e-2, .weight_decay = 0.1, .step = 7, .gradient_scale = 0.5});
                     },
                     1e-13});
}

std::vector<OpCase> all_cases() {
  std::vector<OpCase> cases;
  add_elementwise(cases, 1, 1);
  add_elementwise(cases, 7, 129);
  add_elementwise(cases, 3, 1000);
  add_features(cases, 1, 1, 1, 1.0f);
  add_features(cases, 9, 70, 33, 0.0f);
  add_features(cases, 40, 257, 64, 0.05f);
  add_features(cases, 70, 129, 1050, 0.5f);
  add_features(cases, 5, 1100, 36, 0.3f);
  add_products(cases, 1, 1, 1);
  add_products(cases, 19, 33, 130);
  add_decoder(cases);
  add_optimiser(cases, 1);
  add_optimiser(cases, 9001);
  return cases;
}

class OnGpuCase : public ::testing::TestWithParam<OpCase> {};
TEST_P(OnGpuCase, EqualsTheCpu) { expect_gpu_equals_cpu(GetParam()); }

INSTANTIATE_TEST_SUITE_P(Ops, OnGpuCase, ::testing::ValuesIn(all_cases()),
                         [](const auto& test) { return test.param.name; });

TEST(OnGpu, FindsTheFirstNumberThatIsNotFinite) {
  if (!has_gpu()) GTEST_SKIP() << "no GPU here";
  Context gpu = Context::cuda(0);
  for (const std::int64_t bad : {-1, 0, 4099, 8200}) {
    const Buffer x = uniform(DType::kFloat32, {8201}, 1);
    if (bad >= 0) x.span<float>()[static_cast<std::size_t>(bad)] = bad % 2 == 0 ? INFINITY : NAN;
    if (bad == 0) x.span<float>()[77] = NAN;
    Mirror at(gpu);
    EXPECT_EQ(first_non_finite(gpu, at(x)), bad);
  }
}

TEST(OnGpu, NamesAnIdOutsideTheTable) {
  if (!has_gpu()) GTEST_SKIP() << "no GPU here";
  Context gpu = Context::cuda(0);
  const Buffer table = uniform(DType::kFloat32, {11, 5}, 1), ids = ints({3, 11, -1}),
               out = room(DType::kFloat32, {3, 5});
  Mirror at(gpu);
  try {
    embed(gpu, at(ids), at(table), at(out));
    ADD_FAILURE() << "not refused";
  } catch (const ShapeError& error) {
    EXPECT_NE(std::string(error.what()).find("id 11 at position 1"), std::string::npos) << error.what();
  }
}

TEST(OnGpu, PinnedMemoryAndEventsCarryNumbersBetweenTwoLinesOfWork) {
  if (!has_gpu()) GTEST_SKIP() << "no GPU here";
  Context computing = Context::cuda(0);
  Context copying = computing.beside();
  const Buffer from = Buffer::pinned(Device::kCuda, DType::kFloat32, {1000}),
               back = Buffer::pinned(Device::kCuda, DType::kFloat32, {1000});
  EXPECT_EQ(from.device(), Device::kCpu);
  const Buffer there(Device::kCuda, DType::kFloat32, {1000});
  for (std::size_t i = 0; i < 1000; ++i) from.span<float>()[i] = static_cast<float>(i);
  Event copied(Device::kCuda), computed(Device::kCuda);
  EXPECT_TRUE(copied.reached()) << "stands for nothing yet";
  copy(copying, from.tensor(), there.tensor());
  copied.record(copying);
  copied.hold(computing);
  add_to(computing, there.tensor(), there.tensor());
  computed.record(computing);
  computed.hold(copying);
  copy(copying, there.tensor(), back.tensor());
  synchronize(copying);
  EXPECT_TRUE(computed.reached());
  for (std::size_t i = 0; i < 1000; ++i) ASSERT_EQ(back.span<float>()[i], 2 * static_cast<float>(i));
}

TEST(OnGpu, ADeviceThatIsNotThereIsNamed) {
  if (!has_gpu()) GTEST_SKIP() << "no GPU here";
  try {
    Context::cuda(977);
    ADD_FAILURE() << "not refused";
  } catch (const DeviceError& error) {
    EXPECT_NE(std::string(error.what()).find("GPU 977 was asked for, this process sees"), std::string::npos);
  }
}

TEST(OnGpu, TooMuchMemoryNamesBytesNeededAndFree) {
  if (!has_gpu()) GTEST_SKIP() << "no GPU here";
  try {
    const Buffer huge(Device::kCuda, std::size_t{1} << 45);
    ADD_FAILURE() << "not refused";
  } catch (const DeviceError& error) {
    EXPECT_NE(std::string(error.what()).find("35184372088832 bytes needed"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace tadapt
