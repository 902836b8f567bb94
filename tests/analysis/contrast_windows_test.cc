// Contrast windows are those with the lowest draws, and what a store says of them is what naive loops find. That their
// bytes do not depend on ranks, batches and interruptions is part of feature_interruptions_test.cc.
#include "runtime/analysis/contrast_windows.h"

#include <set>

#include "kernels/core/random.h"
#include "tests/analysis/features_fixture.h"

namespace tadapt {
namespace {
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class ContrastWindowsTest : public testing::FeaturesFixture {
 protected:
  void SetUp() override {
    FeaturesFixture::SetUp();
    // From features that are active nearly everywhere to some that are hardly ever.
    for (const AdapterBundle::Layer& layer : bundle_.layers) {
      const std::span<float> bias = layer.store->master_views(0)["b_enc"].span<float>();
      for (std::size_t i = 0; i < bias.size(); ++i) bias[i] = 0.5f - 0.3f * static_cast<float>(i);
    }
    export_adapters(files_, bundle_, folder_ / "rarer");
  }
  FeatureRequest rarer(const std::string& out, int contrast) {
    FeatureRequest asked = request(out);
    asked.adapters = folder_ / "rarer";
    asked.records.contrast = contrast;
    return asked;
  }
};
INSTANTIATE_TEST_SUITE_P(Device, ContrastWindowsTest, ::testing::Values(Device::kCpu), testing::device_name);

TEST_P(ContrastWindowsTest, AreThoseWithTheLowestDraws) {
  collect(rarer("out", 40));
  const StoredTokens tokens = FeatureStore(files_, folder_ / "out").tokens();
  std::vector<std::tuple<std::uint64_t, std::int64_t, std::int32_t>> all;
  for (std::int64_t i = 0; i < tokens.size(); ++i)
    for (std::int32_t position = 0; position < std::ssize(tokens.sequence(i).ids); ++position)
      all.emplace_back(
          RandomStream(5, RandomPurpose::kContrast, 0, static_cast<std::uint64_t>(tokens.sequence(i).number))
              .bits64(static_cast<std::uint32_t>(position)),
          tokens.sequence(i).number, position);
  std::ranges::sort(all);
  std::set<std::pair<std::int64_t, std::int32_t>> expected;
  for (std::size_t i = 0; i < 40; ++i) expected.emplace(std::get<1>(all[i]), std::get<2>(all[i]));
  std::vector<std::pair<std::int64_t, std::int32_t>> found;
  for (const auto& [sequence, position] : tokens.contrast()) found.emplace_back(sequence, position);
  EXPECT_EQ(found, (std::vector<std::pair<std::int64_t, std::int32_t>>(expected.begin(), expected.end())));
}

TEST_P(ContrastWindowsTest, KnowWhichFeaturesAreActiveInThem) {
  collect(rarer("out", 40));
  const FeatureStore store(files_, folder_ / "out");
  const StoredTokens tokens = store.tokens();
  Context context = testing::context_on(GetParam(), 2);
  const Decoder pair = Decoder::load_pair(context, files_, folder_ / "target", folder_ / "base", DType::kFloat32);
  AdapterFeatures source(context, pair, bundle_, DType::kFloat32);
  std::map<int, std::vector<std::vector<std::int32_t>>> expected;  // by layer and feature, windows
  for (const int layer : store.layers()) expected[layer].resize(testing::kTestFeatures);
  for (std::size_t number = 0; number < tokens.contrast().size(); ++number) {
    const auto& [sequence, position] = tokens.contrast()[number];
    TokenBatch batch;
    batch.append(tokens.with_number(sequence).ids);
    source.run(batch, [&](Context& where, int layer, const Tensor& activations) {
      const std::vector<float> a = on_host<float>(where, activations);
      for (std::int64_t f = 0; f < testing::kTestFeatures; ++f) {
        bool active = false;
        for (std::int64_t t = std::max(0, position - 50);
             t <= std::min<std::int64_t>(position + 20, batch.tokens() - 1); ++t)
          active = active || a[static_cast<std::size_t>(t * testing::kTestFeatures + f)] > 0.0f;
        if (active) expected[layer][static_cast<std::size_t>(f)].push_back(static_cast<std::int32_t>(number));
      }
    });
  }
  std::size_t silent = 0, active = 0;
  for (const int number : store.layers()) {
    const StoredLayer layer = store.layer(number);
    for (std::int64_t f = 0; f < layer.features(); ++f) {
      const StoredFeature feature = layer.feature(f);
      EXPECT_TRUE(std::ranges::equal(feature.contrast, expected[number][static_cast<std::size_t>(f)]))
          << "layer " << number << " feature " << f;
      active += feature.contrast.size();
      silent += tokens.contrast().size() - feature.contrast.size();
    }
  }
  EXPECT_GT(silent, 100u);
  EXPECT_GT(active, 100u);
}

TEST_P(ContrastWindowsTest, AreAsManyAsThereAreTokensAtMost) {
  collect(rarer("all", kMostContrastWindows));
  const FeatureStore all(files_, folder_ / "all");
  EXPECT_EQ(std::ssize(all.tokens().contrast()), all.description().totals.tokens);
  collect(rarer("none", 0));
  const FeatureStore none(files_, folder_ / "none");
  EXPECT_THAT(none.tokens().contrast(), IsEmpty());
  EXPECT_THAT(none.layer(0).feature(0).contrast, IsEmpty());
}

TEST_P(ContrastWindowsTest, StoresThatDoNotHaveThemAreRead) {
  collect(rarer("out", 40));
  auto json = nlohmann::ordered_json::parse(read_text(files_, folder_ / "out" / kFeatureStoreFile));
  json["records"].erase("contrast");
  for (const char* name : {"contrast/sequence", "contrast/position"}) json["tokens"]["columns"].erase(name);
  for (auto& layer : json["layers"])
    for (const char* name : {"contrast/begin", "contrast/window"}) layer["listing"]["columns"].erase(name);
  write_atomically(files_, folder_ / "out" / kFeatureStoreFile, json.dump());
  const FeatureStore store(files_, folder_ / "out");
  EXPECT_EQ(store.description().records.contrast, 0);
  EXPECT_THAT(store.tokens().contrast(), IsEmpty());
  EXPECT_GT(store.layer(2).feature(0).counts.active, 0);
  EXPECT_THAT(store.layer(2).feature(0).contrast, IsEmpty());
}

TEST(WindowAround, IsCutAtTheConversationsEnds) {
  const auto window = [](std::int32_t position, std::int64_t tokens) {
    const TokenRange range = window_around(position, tokens);
    return std::pair(range.begin, range.end);
  };
  EXPECT_EQ(window(60, 200), std::pair(10, 81));
  EXPECT_EQ(window(0, 200), std::pair(0, 21));
  EXPECT_EQ(window(199, 200), std::pair(149, 200));
  EXPECT_EQ(window(5, 10), std::pair(0, 10));
}

}  // namespace
}  // namespace tadapt
