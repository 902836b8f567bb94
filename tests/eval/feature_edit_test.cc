// Feature sets and edits: what they change of a bundle, what runs then, and what they refuse.
#include "runtime/bundle/feature_edit.h"

#include "runtime/eval/adapter_set.h"
#include "runtime/export/export.h"
#include "tests/eval/random_bundle.h"
#include "tests/support/errors.h"
#include "tests/support/temporary_directory.h"

namespace tadapt {
namespace {
using ::testing::AllOf;
using ::testing::Each;
using ::testing::HasSubstr;

constexpr std::int64_t kFeatures = 12, kWidth = 24, kTokens = 5;

class FeatureEditTest : public ::testing::Test {
 protected:
  FeatureSet set(std::map<int, std::vector<std::int32_t>> features) const {
    return {.name = "some", .rule = "by hand", .adapters = fingerprint(adapters_), .features = std::move(features)};
  }
  NamedFeatureSet named(std::map<int, std::vector<std::int32_t>> features) const {
    return {.file = "some.json", .set = set(std::move(features))};
  }
  AdapterBundle edited(const FeatureEdit& edit) const {
    AdapterBundle bundle = random();
    apply(edit, bundle);
    return bundle;
  }
  static AdapterBundle random() { return testing::random_bundle({0, 2}, {kWidth, kFeatures}, 0.5f); }

  /// T(x) of layer 2, and which of its features were active on some token.
  struct Ran {
    std::vector<float> output;
    std::vector<bool> active;
  };
  Ran run(const AdapterBundle& bundle) {
    AdapterSet adapters(context_, bundle, DType::kFloat32);
    std::vector<bool> active(kFeatures, false);
    const Buffer out(Device::kCpu, DType::kFloat32, {kTokens, kWidth});
    adapters.listen([&](int, const TokenBatch&, const Tensor& activations) {
      const auto values = activations.span<float>();
      for (std::size_t i = 0; i < values.size(); ++i) active[i % kFeatures] = active[i % kFeatures] || values[i] > 0.0f;
    });
    adapters.add_output(context_, 2, TokenBatch(), x_.tensor(), out.tensor());
    return {{out.span<float>().begin(), out.span<float>().end()}, active};
  }
  /// Σ of the chosen features' decoder rows times their activations, in double; `factor` times, and b_dec if asked for.
  std::vector<double> expected(const std::vector<std::int32_t>& chosen, double factor, bool with_bias) {
    const ParameterTensors masters = adapters_.layers[1].store->master_views(0);
    const auto weight = [&](const char* name, std::int64_t i, std::int64_t d) {
      return static_cast<double>(masters[name].span<float>()[static_cast<std::size_t>(i * kWidth + d)]);
    };
    std::vector<double> sum;
    for (std::int64_t t = 0; t < kTokens; ++t)
      for (std::int64_t d = 0; d < kWidth; ++d) {
        double value = with_bias ? masters["b_dec"].span<float>()[static_cast<std::size_t>(d)] : 0.0;
        for (const std::int32_t i : chosen) {
          double before = masters["b_enc"].span<float>()[static_cast<std::size_t>(i)];
          for (std::int64_t k = 0; k < kWidth; ++k)
            before += weight("W_enc", i, k) * x_.span<float>()[static_cast<std::size_t>(t * kWidth + k)];
          value += factor * std::max(before, 0.0) * weight("W_dec", i, d);
        }
        sum.push_back(value);
      }
    return sum;
  }
  void expect_output(const FeatureEdit& edit, const std::vector<std::int32_t>& chosen, double factor, bool with_bias) {
    const Ran found = run(edited(edit));
    const std::vector<double> wanted = expected(chosen, factor, with_bias);
    for (std::size_t i = 0; i < wanted.size(); ++i) ASSERT_NEAR(found.output[i], wanted[i], 1e-4) << i;
    for (std::int32_t i = 0; i < kFeatures; ++i) {
      const bool is_chosen = std::ranges::find(chosen, i) != chosen.end();
      EXPECT_TRUE(is_chosen || !found.active[static_cast<std::size_t>(i)]) << i;
    }
  }

  RealFileSystem files_;
  testing::TemporaryDirectory folder_;
  Context context_ = Context::cpu(1);
  const AdapterBundle adapters_ = random();
  const Buffer x_ = testing::random_tensor({kTokens, kWidth}, 0.0f, 1.0f, 3, 1);
};

TEST_F(FeatureEditTest, SetsReadBackEqual) {
  const FeatureSet written = set({{0, {1, 5}}, {2, {0, 11}}});
  write_feature_set(files_, folder_ / "set.json", written);
  const FeatureSet found = read_feature_set(files_, folder_ / "set.json");
  EXPECT_EQ(found.name, written.name);
  EXPECT_EQ(found.rule, written.rule);
  EXPECT_EQ(found.adapters, written.adapters);
  EXPECT_EQ(found.features, written.features);
  EXPECT_EQ(found.size(), 4);
}

TEST_F(FeatureEditTest, WhatIsNoSetIsRefused) {
  const auto read = [&](const std::string& text) {
    write_atomically(files_, folder_ / "set.json", text);
    return read_feature_set(files_, folder_ / "set.json");
  };
  EXPECT_ERROR(read("[]"), DataError, HasSubstr("format_version"));
  EXPECT_ERROR(read(R"({"format_version":7})"), DataError, HasSubstr("expected 1, found 7"));
  const std::string head = R"({"format_version":1,"name":"a","rule":"b","adapters":"c","layers":)";
  EXPECT_ERROR(read(head + R"([{"layer":0,"features":[3,3]}]})"), DataError, HasSubstr("found 3 after 3"));
  EXPECT_ERROR(read(head + R"([{"layer":0,"features":[-1]}]})"), DataError, HasSubstr("found -1"));
  EXPECT_ERROR(read(head + R"([{"layer":0,"features":[]},{"layer":0,"features":[]}]})"), DataError, HasSubstr("twice"));
  EXPECT_ERROR(read(head + R"([{"features":[]}]})"), DataError, HasSubstr("layer"));
  EXPECT_ERROR(read_feature_set(files_, folder_ / "none.json"), MissingInputError, HasSubstr("none.json"));
}

TEST_F(FeatureEditTest, SetsOfOthersAreRefused) {
  const auto remove = [&](const FeatureSet& removed) { edited({.remove = NamedFeatureSet{"s.json", removed}}); };
  EXPECT_ERROR(remove(set({{2, {9999}}})), DataError, HasSubstr("s.json: names feature 9999 of layer 2"));
  EXPECT_ERROR(remove(set({{1, {0}}})), DataError, HasSubstr("layer 1, which has no adapter"));
  FeatureSet other = set({{2, {0}}});
  other.adapters = "transcoder 0";
  EXPECT_ERROR(remove(other), ConfigError, AllOf(HasSubstr("transcoder 0"), HasSubstr(fingerprint(adapters_))));
}

TEST_F(FeatureEditTest, RemovedFeaturesAreGone) {
  expect_output({}, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, 1.0, true);
  expect_output({.remove = named({{2, {0, 4, 11}}})}, {1, 2, 3, 5, 6, 7, 8, 9, 10}, 1.0, true);
}

TEST_F(FeatureEditTest, KeptFeaturesStayAlone) {
  expect_output({.keep_only = named({{2, {3, 7}}})}, {3, 7}, 1.0, true);
  expect_output({.remove = named({{2, {7}}}), .keep_only = named({{2, {3, 7}}})}, {3}, 1.0, true);
  expect_output({.keep_only = named({{0, {1}}})}, {}, 1.0, true);
  const AdapterBundle nothing = edited({.keep_only = named({}), .decoder_bias = FeatureEdit::DecoderBias::kDropped});
  EXPECT_THAT(run(nothing).output, Each(0.0f));
}

TEST_F(FeatureEditTest, FeaturesCanBeAddedToTheTarget) {
  const FeatureEdit edit{.keep_only = named({{2, {3, 7}}}),
                         .decoder_scale = -0.5f,
                         .decoder_bias = FeatureEdit::DecoderBias::kDropped,
                         .beside = MlpSource::kTarget};
  expect_output(edit, {3, 7}, -0.5, false);
  AdapterSet adapters(context_, edited(edit), DType::kFloat32);
  const Splice splice = adapters.splice(3, 0, 3);
  EXPECT_EQ(splice[2].mlp, MlpSource::kTarget);
  EXPECT_EQ(splice[2].adapter, &adapters);
  EXPECT_EQ(splice[1].adapter, nullptr);
  EXPECT_EQ(AdapterSet(context_, adapters_, DType::kFloat32).splice(3, 0, 3)[2].mlp, MlpSource::kBase);
}

TEST_F(FeatureEditTest, ExportsOfEditedAdaptersAreThoseThatRan) {
  testing::write_tiny_model(folder_ / "target", {.seed = 1});
  testing::write_tiny_model(folder_ / "base", {.seed = 2});
  const AdapterBundle bundle =
      edited({.keep_only = named({{2, {3, 7}}}), .decoder_scale = 2.0f, .beside = MlpSource::kTarget});
  export_adapters(files_, bundle, folder_ / "adapters");
  export_authors(files_, bundle, folder_ / "base", folder_ / "target", folder_ / "authors");
  for (const char* name : {"adapters", "authors"}) {
    const AdapterBundle found = load_adapters(files_, folder_ / name, [](const std::string&) {});
    EXPECT_EQ(fingerprint(found), fingerprint(bundle));
    EXPECT_EQ(found.beside, MlpSource::kTarget);
    EXPECT_THAT(found.edits, AllOf(HasSubstr("keep only some (2 features"), HasSubstr("decoders times 2")));
  }
  const ModelFiles target(folder_ / "target"), made(folder_ / "authors");
  EXPECT_TRUE(std::ranges::equal(target.tensor("model.layers.0.mlp.up_proj.weight").span<float>(),
                                 made.tensor("model.layers.0.mlp.up_proj.weight").span<float>()));
}

TEST_F(FeatureEditTest, EditsTellWhatTheyAre) {
  EXPECT_EQ(FeatureEdit{}.to_string(), "");
  const auto text = [&](std::map<int, std::vector<std::int32_t>> features) {
    return FeatureEdit{.remove = named(std::move(features))}.to_string();
  };
  EXPECT_NE(text({{0, {1}}}), text({{0, {2}}}));
  EXPECT_EQ(text({{0, {1}}}), text({{0, {1}}, {2, {}}}));
}

}  // namespace
}  // namespace tadapt
