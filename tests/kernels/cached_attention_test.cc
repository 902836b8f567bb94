// cached_attention against softmax in double and, on the CPU, bit for bit against attention over whole sequences.
#include "kernels/cached_attention.h"

#include <cmath>

#include "kernels/attention.h"
#include "tests/kernels/testing.h"

namespace tadapt {
namespace {
using testing::uniform;
using testing::value;

struct Case {
  std::int64_t heads, groups, size;
  std::vector<std::int32_t> lengths;
  DType cache = DType::kFloat32;
};

/// Whole sequences packed, and their keys and values in pages whose order is mixed.
struct Operands {
  explicit Operands(const Case& c) {
    for (const std::int32_t length : c.lengths) offsets.push_back(offsets.back() + length);
    const std::int64_t tokens = offsets.back(), sequences = static_cast<std::int64_t>(c.lengths.size());
    query = uniform(DType::kFloat32, {tokens, c.heads, c.size}, 1, -2, 2);
    key = uniform(DType::kFloat32, {tokens, c.groups, c.size}, 2, -2, 2);
    value = uniform(DType::kFloat32, {tokens, c.groups, c.size}, 3);
    std::int64_t columns = 1;
    for (const std::int32_t length : c.lengths) columns = std::max(columns, (length + kPageTokens - 1) / kPageTokens);
    pages = sequences * columns + 3;
    tables = Buffer(Device::kCpu, DType::kInt32, {sequences, columns});
    for (std::int64_t i = 0; i < sequences * columns; ++i)  // a permutation: 1 is a unit of any size
      tables.span<std::int32_t>()[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(pages - 1 - i);
    slots = Buffer(Device::kCpu, DType::kInt32, {tokens});
    positions = Buffer(Device::kCpu, DType::kInt32, {sequences});
    newest = Buffer(Device::kCpu, DType::kFloat32, {sequences, c.heads, c.size});
    for (std::int64_t b = 0; b < sequences; ++b) {
      const std::int32_t begin = offsets[static_cast<std::size_t>(b)], length = c.lengths[static_cast<std::size_t>(b)];
      for (std::int32_t i = 0; i < length; ++i) {
        const std::int32_t page = tables.span<std::int32_t>()[static_cast<std::size_t>(b * columns + i / kPageTokens)];
        slots.span<std::int32_t>()[static_cast<std::size_t>(begin + i)] =
            page * static_cast<std::int32_t>(kPageTokens) + i % static_cast<std::int32_t>(kPageTokens);
      }
      positions.span<std::int32_t>()[static_cast<std::size_t>(b)] = length - 1;
      const std::size_t row = static_cast<std::size_t>(c.heads * c.size);
      std::copy_n(query.span<float>().begin() + static_cast<std::ptrdiff_t>(row) * (begin + length - 1), row,
                  newest.span<float>().begin() + static_cast<std::ptrdiff_t>(row) * b);
    }
  }

  std::vector<std::int32_t> offsets{0};
  std::int64_t pages = 0;
  Buffer query, key, value, tables, slots, positions, newest;
};

class CachedAttention : public testing::PerDevice {
 protected:
  void SetUp() override {
    PerDevice::SetUp();
    if (!IsSkipped()) context_.emplace(testing::context_on(GetParam(), 2));
  }
  /// The newest tokens' results, the cache filled from the packed sequences.
  std::vector<float> attend(const Case& c, const Operands& o) {
    const DeviceView key(*context_, o.key.tensor()), values(*context_, o.value.tensor()),
        slots(*context_, o.slots.tensor()), newest(*context_, o.newest.tensor()),
        positions(*context_, o.positions.tensor()), tables(*context_, o.tables.tensor());
    const Buffer cached_keys(GetParam(), c.cache, {o.pages, c.groups, c.size, kPageTokens}),
        cached_values(GetParam(), c.cache, {o.pages, c.groups, kPageTokens, c.size}),
        out(GetParam(), DType::kFloat32, o.newest.tensor().shape());
    const CachePages pages{cached_keys.tensor(), cached_values.tensor()};
    store_in_cache(*context_, key.tensor(), values.tensor(), slots.tensor(), pages);
    cached_attention(*context_, {newest.tensor(), positions.tensor(), tables.tensor()}, pages, out.tensor());
    return on_host<float>(*context_, out.tensor());
  }
  std::optional<Context> context_;
};
INSTANTIATE_TEST_SUITE_P(Devices, CachedAttention, testing::kEachDevice, testing::device_name);

const std::vector<Case> kCases{{1, 1, 1, {1}},
                               {4, 2, 32, {1, 64, 65, 128, 3}},
                               {7, 1, 16, {200, 63}},
                               {28, 4, 8, {40, 7}},
                               {12, 1, 20, {130}},  // more heads of a group than a block has warps
                               {2, 2, 96, {70}},
                               {2, 1, 129, {66, 5}},
                               {1, 1, 256, {70}},
                               {2, 1, 8, {1100, 513, 512, 1}},  // several parts
                               {4, 2, 32, {70, 2}, DType::kBFloat16}};

/// Of the newest token of sequence b, head n: the formula in double.
std::vector<double> oracle(const Case& c, const Operands& o, std::size_t b, std::int64_t n) {
  const std::int64_t g = n * c.groups / c.heads, newest = o.offsets[b + 1] - 1;
  const auto cached = [&](const Buffer& of, std::int64_t s, std::int64_t d) {
    const auto number = static_cast<float>(value(of.tensor(), (s * c.groups + g) * c.size + d));
    return static_cast<double>(c.cache == DType::kBFloat16 ? round_to_bfloat16(number) : number);
  };
  std::vector<double> result(static_cast<std::size_t>(c.size)), scores;
  double sum = 0;
  for (std::int64_t s = o.offsets[b]; s <= newest; ++s) {
    double score = 0;
    for (std::int64_t d = 0; d < c.size; ++d)
      score += value(o.query.tensor(), (newest * c.heads + n) * c.size + d) * cached(o.key, s, d);
    const double weight = std::exp(score / std::sqrt(static_cast<double>(c.size)));
    sum += weight;
    for (std::int64_t d = 0; d < c.size; ++d) result[static_cast<std::size_t>(d)] += weight * cached(o.value, s, d);
  }
  for (double& number : result) number /= sum;
  return result;
}

TEST_P(CachedAttention, MatchesTheOracle) {
  for (const Case& c : kCases) {
    const Operands o(c);
    const std::vector<float> found = attend(c, o);
    for (std::size_t b = 0; b < c.lengths.size(); ++b) {
      for (std::int64_t n = 0; n < c.heads; ++n) {
        const std::vector<double> truth = oracle(c, o, b, n);
        for (std::size_t d = 0; d < truth.size(); ++d)
          ASSERT_NEAR(found[(b * static_cast<std::size_t>(c.heads) + static_cast<std::size_t>(n)) * truth.size() + d],
                      truth[d], 1e-5)
              << "H " << c.heads << " h " << c.size << " sequence " << b << " head " << n;
      }
    }
  }
}

TEST_P(CachedAttention, ARowDoesNotDependOnWhatRunsBesideIt) {
  const Case both{4, 2, 24, {700, 90}}, alone{4, 2, 24, {700}};
  const Operands o(both);
  const std::vector<float> beside = attend(both, o), by_itself = attend(alone, Operands(alone));
  EXPECT_TRUE(std::equal(by_itself.begin(), by_itself.end(), beside.begin()));
}

TEST(CachedAttentionBits, AreThoseOfAttentionOverWholeSequences) {
  Context context = Context::cpu(2);
  for (const Case& c : kCases) {
    if (c.cache != DType::kFloat32) continue;
    Operands o(c);
    const Buffer whole(Device::kCpu, DType::kFloat32, o.query.tensor().shape());
    causal_attention(context,
                     {o.query.tensor(), o.key.tensor(), o.value.tensor(),
                      Tensor::of(std::span(o.offsets), {static_cast<std::int64_t>(o.offsets.size())})},
                     whole.tensor());
    const Buffer keys(Device::kCpu, DType::kFloat32, {o.pages, c.groups, c.size, kPageTokens}),
        values(Device::kCpu, DType::kFloat32, {o.pages, c.groups, kPageTokens, c.size}),
        out(Device::kCpu, DType::kFloat32, o.newest.tensor().shape());
    store_in_cache(context, o.key.tensor(), o.value.tensor(), o.slots.tensor(), {keys.tensor(), values.tensor()});
    cached_attention(context, {o.newest.tensor(), o.positions.tensor(), o.tables.tensor()},
                     {keys.tensor(), values.tensor()}, out.tensor());
    for (std::int64_t b = 0; b < out.tensor().size(0); ++b) {
      const std::int64_t newest = o.offsets[static_cast<std::size_t>(b) + 1] - 1;
      EXPECT_TRUE(testing::same_bits(out.tensor().rows(b, b + 1), whole.tensor().rows(newest, newest + 1)))
          << "H " << c.heads << " h " << c.size << " sequence " << b;
    }
  }
}

TEST(CachedAttentionBits, PlacesOutsideAreRefused) {
  Context context = Context::cpu(1);
  const Case c{2, 1, 4, {5}};
  const Operands o(c);
  const Buffer keys(Device::kCpu, DType::kFloat32, {o.pages, 1, 4, kPageTokens}),
      values(Device::kCpu, DType::kFloat32, {o.pages, 1, kPageTokens, 4}),
      out(Device::kCpu, DType::kFloat32, o.newest.tensor().shape());
  const CachePages pages{keys.tensor(), values.tensor()};
  const CachedQueries queries{o.newest.tensor(), o.positions.tensor(), o.tables.tensor()};
  o.positions.span<std::int32_t>()[0] = 64;
  EXPECT_THROW(cached_attention(context, queries, pages, out.tensor()), ShapeError);
  o.positions.span<std::int32_t>()[0] = 4;
  o.tables.span<std::int32_t>()[0] = static_cast<std::int32_t>(o.pages);
  EXPECT_THROW(cached_attention(context, queries, pages, out.tensor()), ShapeError);
  o.slots.span<std::int32_t>()[0] = static_cast<std::int32_t>(o.pages * kPageTokens);
  EXPECT_THROW(store_in_cache(context, o.key.tensor(), o.value.tensor(), o.slots.tensor(), pages), ShapeError);
  EXPECT_THROW(
      store_in_cache(context, o.key.tensor(), o.value.tensor(), o.slots.tensor(), {values.tensor(), values.tensor()}),
      ShapeError);
}

}  // namespace
}  // namespace tadapt
