// Every backward op on every other device this build has, against the CPU's.
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

std::vector<OpCase> all_cases() {
  std::vector<OpCase> cases;
  add_elementwise(cases, 0, 3);
  add_elementwise(cases, 1, 1);
  add_elementwise(cases, 7, 129);
  add_elementwise(cases, 3, 1100);
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
