// Maps of positions against sums in double.
#include "kernels/position_maps.h"

#include "tests/kernels/device_cases.h"

namespace tadapt {
namespace {
using testing::Mirror;
using testing::OpCase;
using testing::Operands;
using testing::operands;
using testing::room;
using testing::same_bits;
using testing::uniform;
using testing::value;

constexpr float kUntouched = 77.0f;

/// Rows of x, dealt out to positions in turn, but for every fifth, which has none, and the second position, which gets
/// none.
struct Deal {
  std::vector<std::int32_t> offsets{0}, rows;
  Deal(std::int64_t positions, std::int64_t count) {
    for (std::int64_t t = 0; t < positions; ++t) {
      for (std::int64_t row = count; row-- > 0;)
        if (row % 5 != 4 && t != 1 && row % positions == t) rows.push_back(static_cast<std::int32_t>(row));
      offsets.push_back(static_cast<std::int32_t>(rows.size()));
    }
  }
};

struct Case {
  std::int64_t positions, rows, width;
};
const std::vector<Case> kCases = {{1, 1, 1}, {1, 0, 5}, {3, 40, 17}, {2, 171, 130}, {4, 9, 64}};

TEST(MapRowsOp, MatchesTheOracleAndLeavesOtherRowsAlone) {
  for (const auto& [positions, count, width] : kCases) {
    Context context = Context::cpu(2);
    const Buffer maps = uniform(DType::kFloat32, {positions, width, width}, 1),
                 x = uniform(DType::kFloat32, {count, width}, 2),
                 y = uniform(DType::kFloat32, {count, width}, 3, kUntouched, kUntouched);
    const Deal deal(positions, count);
    const Buffer offsets = testing::ints(deal.offsets), rows = testing::ints(deal.rows);
    map_rows(context, {maps.tensor(), offsets.tensor(), rows.tensor()}, x.tensor(), y.tensor());
    std::vector<std::int64_t> position_of(static_cast<std::size_t>(count), -1);
    for (std::int64_t t = 0; t < positions; ++t)
      for (auto i = static_cast<std::size_t>(deal.offsets[static_cast<std::size_t>(t)]);
           i < static_cast<std::size_t>(deal.offsets[static_cast<std::size_t>(t) + 1]); ++i)
        position_of[static_cast<std::size_t>(deal.rows[i])] = t;
    for (std::int64_t row = 0; row < count; ++row) {
      const std::int64_t t = position_of[static_cast<std::size_t>(row)];
      for (std::int64_t column = 0; column < width; ++column) {
        double truth = t < 0 ? static_cast<double>(kUntouched) : value(x.tensor(), row * width + column);
        for (std::int64_t k = 0; t >= 0 && k < width; ++k)
          truth += value(x.tensor(), row * width + k) * value(maps.tensor(), (t * width + k) * width + column);
        ASSERT_NEAR(value(y.tensor(), row * width + column), truth, 2e-5) << row << " " << column;
      }
    }
  }
}

TEST(MapRowsOp, BitsOfARowAreItsOwn) {
  constexpr std::int64_t kRows = 23, kWidth = 50;
  const Buffer maps = uniform(DType::kFloat32, {1, kWidth, kWidth}, 1),
               x = uniform(DType::kFloat32, {kRows, kWidth}, 2);
  const auto mapped = [&](int threads, std::vector<std::int32_t> some) {
    Context context = Context::cpu(threads);
    const Buffer y = uniform(DType::kFloat32, {kRows, kWidth}, 3, kUntouched, kUntouched);
    const Buffer offsets = testing::ints({0, static_cast<std::int32_t>(some.size())}), rows = testing::ints(some);
    map_rows(context, {maps.tensor(), offsets.tensor(), rows.tensor()}, x.tensor(), y.tensor());
    return testing::copy(y.tensor().rows(7, 8));
  };
  std::vector<std::int32_t> all(kRows);
  for (std::int32_t row = 0; row < kRows; ++row) all[static_cast<std::size_t>(row)] = row;
  const Buffer alone = mapped(1, {7}), among = mapped(3, all), last = mapped(1, {0, 3, 1, 22, 9, 7});
  EXPECT_TRUE(same_bits(alone.tensor(), among.tensor()));
  EXPECT_TRUE(same_bits(alone.tensor(), last.tensor()));
}

TEST(BlendRowsOp, MatchesTheOracle) {
  for (const auto& [n, k] : std::vector<std::array<std::int64_t, 2>>{{0, 3}, {1, 1}, {7, 33}, {300, 129}}) {
    Context context = Context::cpu(2);
    const Buffer a = uniform(DType::kFloat32, {n}, 1), b = uniform(DType::kFloat32, {n}, 2),
                 gate = uniform(DType::kFloat32, {n, k}, 3), up = uniform(DType::kFloat32, {n, k}, 4),
                 scale = uniform(DType::kFloat32, {k}, 5), out(Device::kCpu, DType::kFloat32, {n, k});
    blend_rows(context, {a.tensor(), b.tensor()}, {gate.tensor(), up.tensor()}, scale.tensor(), out.tensor());
    for (std::int64_t i = 0; i < n * k; ++i)
      ASSERT_NEAR(
          value(out.tensor(), i),
          (value(a.tensor(), i / k) * value(gate.tensor(), i) + value(b.tensor(), i / k) * value(up.tensor(), i)) *
              value(scale.tensor(), i % k),
          3e-7);
  }
}

TEST(PositionMaps, RefuseOtherShapes) {
  Context context = Context::cpu(1);
  const Buffer maps(Device::kCpu, DType::kFloat32, {2, 3, 3}), x(Device::kCpu, DType::kFloat32, {4, 3}),
      other(Device::kCpu, DType::kFloat32, {4, 4}), offsets = testing::ints({0, 0}), rows = testing::ints({});
  EXPECT_THROW(map_rows(context, {maps.tensor(), offsets.tensor(), rows.tensor()}, x.tensor(), x.tensor()), ShapeError);
  EXPECT_THROW(map_rows(context, {maps.tensor(), offsets.tensor(), rows.tensor()}, x.tensor(), other.tensor()),
               ShapeError);
  EXPECT_THROW(blend_rows(context, {rows.tensor(), rows.tensor()}, {x.tensor(), x.tensor()}, x.tensor(), x.tensor()),
               ShapeError);
}

std::vector<OpCase> all_cases() {
  std::vector<OpCase> cases;
  for (const auto& [positions, count, width] : kCases) {
    const std::string which = fmt::format("_{}x{}x{}", positions, count, width);
    cases.push_back({"map_rows" + which,
                     [=] {
                       const Deal deal(positions, count);
                       return operands(uniform(DType::kFloat32, {positions, width, width}, 1),
                                       testing::ints(deal.offsets), testing::ints(deal.rows),
                                       uniform(DType::kFloat32, {count, width}, 2),
                                       uniform(DType::kFloat32, {count, width}, 3));
                     },
                     [](Context& c, Mirror& at, const Operands& o) {
                       map_rows(c, {at(o[0]), at(o[1]), at(o[2])}, at(o[3]), at(o[4]));
                     },
                     testing::kSums});
    cases.push_back({"blend_rows" + which,
                     [=] {
                       return operands(uniform(DType::kFloat32, {count}, 1), uniform(DType::kFloat32, {count}, 2),
                                       uniform(DType::kFloat32, {count, width}, 3),
                                       uniform(DType::kFloat32, {count, width}, 4),
                                       uniform(DType::kFloat32, {width}, 5), room(DType::kFloat32, {count, width}));
                     },
                     [](Context& c, Mirror& at, const Operands& o) {
                       blend_rows(c, {at(o[0]), at(o[1])}, {at(o[2]), at(o[3])}, at(o[4]), at(o[5]));
                     },
                     2e-7});
  }
  return cases;
}

class OnGpuMaps : public ::testing::TestWithParam<OpCase> {};
TEST_P(OnGpuMaps, EqualsTheCpu) { testing::expect_gpu_equals_cpu(GetParam()); }
INSTANTIATE_TEST_SUITE_P(Ops, OnGpuMaps, ::testing::ValuesIn(all_cases()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace tadapt
