// Every backward op on every other device this build has, against the CPU's.
#include "kernels/attention_backward.h"
#include "kernels/logit_losses.h"
#include "kernels/losses.h"
#include "kernels/norm.h"
#include "kernels/pointwise.h"
#include "kernels/rope.h"
#include "tests/kernels/device_cases.h"

namespace tadapt {
namespace {
using testing::Mirror;
using testing::OpCase;
using testing::Operands;
using testing::operands;
using testing::room;
using testing::uniform;

constexpr std::array kLinearisations = {Linearisation::kExact, Linearisation::kRelp};
const char* name_of(Linearisation linearisation) { return linearisation == Linearisation::kExact ? "exact" : "relp"; }

void add_elementwise(std::vector<OpCase>& cases, std::int64_t t, std::int64_t n) {
  for (const Linearisation linearisation : kLinearisations) {
    const std::string which = fmt::format("_{}_{}x{}", name_of(linearisation), t, n);
    cases.push_back({"rms_norm_backward" + which,
                     [=] {
                       return operands(uniform(DType::kFloat32, {t, n}, 1), uniform(DType::kFloat32, {n}, 2),
                                       uniform(DType::kFloat32, {t, n}, 3), uniform(DType::kFloat32, {t, n}, 4));
                     },
                     [=](Context& c, Mirror& at, const Operands& o) {
                       rms_norm_backward(c, {at(o[0]), at(o[1]), 1e-6f}, at(o[2]), linearisation, at(o[3]));
                     },
                     2e-7});
    cases.push_back({"swiglu_backward" + which,
                     [=] {
                       return operands(uniform(DType::kFloat32, {t, n}, 1, -30, 30),
                                       uniform(DType::kFloat32, {t, n}, 2), uniform(DType::kFloat32, {t, n}, 3),
                                       room(DType::kFloat32, {t, n}));
                     },
                     [=](Context& c, Mirror& at, const Operands& o) {
                       swiglu_backward(c, {at(o[0]), at(o[1])}, at(o[2]), linearisation, {at(o[3]), at(o[1])});
                     }});
  }
}

void add_losses(std::vector<OpCase>& cases, std::int64_t t, std::int64_t n) {
  const std::string which = testing::shape_name(t, n);
  const auto logits = [=](std::uint64_t sample) { return uniform(DType::kFloat32, {t, n}, sample, -9, 9); };
  const auto weights = [=] { return uniform(DType::kFloat32, {t}, 3, -1, 1); };
  cases.push_back(
      {"kl_loss" + which, [=] { return operands(logits(1), weights(), logits(2), room(DType::kFloat64, {t})); },
       [](Context& c, Mirror& at, const Operands& o) { kl_loss(c, at(o[0]), at(o[1]), at(o[2]), at(o[3])); }, 1e-6});
  cases.push_back(
      {"next_token_loss" + which,
       [=] {
         std::vector<std::int32_t> labels;
         for (std::int64_t i = 0; i < t; ++i) labels.push_back(static_cast<std::int32_t>(i * 31 % n));
         Operands all = operands(testing::ints(labels), weights(), logits(2), room(DType::kFloat64, {t}));
         if (t > 1) all[1].span<float>()[1] = 0;
         return all;
       },
       [](Context& c, Mirror& at, const Operands& o) { next_token_loss(c, at(o[0]), at(o[1]), at(o[2]), at(o[3])); },
       1e-6});
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16})
    cases.push_back({fmt::format("add_squared_error_{}", name(dtype)) + which,
                     [=] {
                       return operands(uniform(DType::kFloat32, {t, n}, 1), uniform(dtype, {t, n}, 2),
                                       uniform(DType::kFloat32, {t, n}, 3), room(DType::kFloat64, {t}));
                     },
                     [](Context& c, Mirror& at, const Operands& o) {
                       add_squared_error(c, at(o[0]), at(o[1]), 0.5f, at(o[2]), at(o[3]));
                     },
                     1e-12});
}

void add_attention(std::vector<OpCase>& cases, std::int64_t heads, std::int64_t groups, std::int64_t size) {
  const std::vector<std::int32_t> offsets = {0, 37, 37, 38, 111};
  const std::int64_t t = offsets.back();
  cases.push_back({fmt::format("causal_attention_backward_{}_{}_{}", heads, groups, size),
                   [=] {
                     return operands(uniform(DType::kFloat32, {t, heads, size}, 1, -2, 2),
                                     uniform(DType::kFloat32, {t, groups, size}, 2, -2, 2),
                                     uniform(DType::kFloat32, {t, groups, size}, 3), testing::ints(offsets),
                                     uniform(DType::kFloat32, {t, heads, size}, 4),
                                     room(DType::kFloat32, {t, heads, size}), room(DType::kFloat32, {t, heads}),
                                     room(DType::kFloat32, {t, heads, size}), room(DType::kFloat32, {t, groups, size}),
                                     room(DType::kFloat32, {t, groups, size}));
                   },
                   [](Context& c, Mirror& at, const Operands& o) {
                     const AttentionInput input{at(o[0]), at(o[1]), at(o[2]), o[3].tensor()};
                     causal_attention(c, input, at(o[5]), at(o[6]));
                     causal_attention_backward(c, input, {at(o[5]), at(o[6]), at(o[4])}, Linearisation::kExact,
                                               {at(o[7]), at(o[8]), at(o[9])});
                   },
                   1e-5});
}

std::vector<OpCase> all_cases() {
  std::vector<OpCase> cases;
  add_elementwise(cases, 0, 3);
  add_elementwise(cases, 1, 1);
  add_elementwise(cases, 7, 129);
  add_elementwise(cases, 3, 1100);
  add_losses(cases, 0, 3);
  add_losses(cases, 1, 1);
  add_losses(cases, 7, 129);
  add_losses(cases, 3, 5000);
  add_attention(cases, 4, 2, 32);
  add_attention(cases, 7, 1, 20);
  add_attention(cases, 2, 2, 128);
  cases.push_back(
      {"rope_backward", [] { return operands(uniform(DType::kFloat32, {3, 2, 34}, 1), testing::ints({0, 77, 9999})); },
       [](Context& c, Mirror& at, const Operands& o) { rope(c, at(o[0]), at(o[1]), 10000.0, Rotation::kBackward); },
       3e-7});
  return cases;
}

class OnGpuBackward : public ::testing::TestWithParam<OpCase> {};
TEST_P(OnGpuBackward, EqualsTheCpu) { testing::expect_gpu_equals_cpu(GetParam()); }
INSTANTIATE_TEST_SUITE_P(Ops, OnGpuBackward, ::testing::ValuesIn(all_cases()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace tadapt
