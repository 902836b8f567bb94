// Splices, packing and loading of decoders: what must be equal is equal bit for bit.
#include "runtime/model/decoder.h"

#include <cstring>

#include "kernels/pointwise.h"
#include "runtime/model/segments.h"
#include "tests/support/devices.h"
#include "tests/support/errors.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/tiny_models.h"

namespace tadapt {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::random_ids;
using testing::tiny_tensors;
using testing::TinyModel;
using testing::TinyTensors;
using testing::write_tiny_model;

/// Logits of a whole run under one splice.
std::vector<float> logits_of(Context& context, const Decoder& decoder, const Splice& splice, const TokenBatch& batch) {
  const int layers = decoder.config().layers;
  const Segment whole{.splice = splice, .begin = 0, .end = layers};
  const ResidualStates states =
      SegmentRunner(context, decoder).run({&whole, 1}, batch, {.keep = {{0, layers}}, .observe = {}});
  const LogitsSource source{&decoder, states.at({0, layers})};
  std::vector<float> logits;
  for_each_logits_chunk(context, {&source, 1}, 1 << 20, [&](const LogitsChunk& chunk) {
    const std::vector<float> part = on_host<float>(context, chunk.logits[0]);
    logits.insert(logits.end(), part.begin(), part.end());
  });
  return logits;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

class DecoderTest : public ::testing::TestWithParam<std::tuple<DType, Device>> {
 protected:
  void SetUp() override {
    if (device() == Device::kCuda && !testing::has_gpu()) GTEST_SKIP() << "no GPU here";
    write_tiny_model(directory_ / "target", target_);
    write_tiny_model(directory_ / "base", base_);
  }
  Decoder pair(Context& context) {
    return Decoder::load_pair(context, files_, directory_ / "target", directory_ / "base", compute());
  }
  DType compute() const { return std::get<DType>(GetParam()); }
  Device device() const { return std::get<Device>(GetParam()); }
  Context context(int threads = 1) const { return testing::context_on(device(), threads); }

  /// Logits of the same tokens in passes of other sizes.
  ::testing::AssertionResult agree(const std::vector<float>& a, const std::vector<float>& b) const {
    return testing::agree(device(), a, b, testing::pass_tolerance(device(), compute(), target_.layers));
  }
  TokenBatch batch_of(std::initializer_list<std::int64_t> lengths) const {
    TokenBatch batch;
    for (const std::int64_t length : lengths) batch.append(random_ids(length, target_.vocabulary, 5));
    return batch;
  }

  const TinyModel target_{.seed = 1};
  const TinyModel base_{.seed = 2};
  testing::TemporaryDirectory directory_;
  RealFileSystem files_;
};

INSTANTIATE_TEST_SUITE_P(Compute, DecoderTest,
                         ::testing::Combine(::testing::Values(DType::kFloat32, DType::kBFloat16), testing::kEachDevice),
                         [](const auto& made) {
                           return fmt::format("{}_{}", name(std::get<DType>(made.param)),
                                              name(std::get<Device>(made.param)));
                         });

TEST_P(DecoderTest, ASequenceDoesNotSeeItsNeighboursNorTheThreads) {
  const bool is_cpu = device() == Device::kCpu;
  const std::vector<std::int64_t> lengths = is_cpu ? std::vector<std::int64_t>{7, 1, 300, 131, 64, 500, 3, 0, 400}
                                                   : std::vector<std::int64_t>{7, 1, 70, 0, 33};
  Context one = context();
  const Decoder decoder = pair(one);
  const Splice splice = uniform_splice(target_.layers, {.mlp = MlpSource::kBase});
  std::vector<std::vector<float>> alone;
  for (const std::int64_t length : lengths) alone.push_back(logits_of(one, decoder, splice, batch_of({length})));
  for (const int threads : is_cpu ? std::vector{1, 2, 3} : std::vector{1}) {
    Context context = this->context(threads);
    TokenBatch batch;
    std::vector<float> expected;
    for (std::size_t i = 0; i < lengths.size(); ++i) {
      const std::size_t which = (i + static_cast<std::size_t>(threads) * 2) % lengths.size();
      batch.append(random_ids(lengths[which], target_.vocabulary, 5));
      expected.insert(expected.end(), alone[which].begin(), alone[which].end());
    }
    EXPECT_TRUE(agree(logits_of(context, decoder, splice, batch), expected)) << threads << " threads";
  }
}

TEST_P(DecoderTest, WhatFollowsChangesNothingBefore) {
  Context context = this->context(2);
  const Decoder decoder = pair(context);
  const Splice splice = uniform_splice(target_.layers, {});
  TokenBatch whole, part;
  const std::vector<std::int32_t> ids = random_ids(90, target_.vocabulary, 5);
  whole.append(ids);
  part.append(std::span(ids).first(61));
  std::vector<float> logits = logits_of(context, decoder, splice, whole);
  logits.resize(61 * static_cast<std::size_t>(target_.vocabulary));
  EXPECT_TRUE(agree(logits_of(context, decoder, splice, part), logits));
}

TEST_P(DecoderTest, HybridIsTheTargetWithBaseMlps) {
  TinyTensors swapped = tiny_tensors(target_);
  for (auto& [name, buffer] : tiny_tensors(base_).buffers) {
    if (name.find(".mlp.") != std::string::npos) swapped.buffers.at(name) = std::move(buffer);
  }
  write_tiny_model(directory_ / "hybrid", target_, swapped.views());
  Context context = this->context();
  const Decoder decoder = pair(context);
  const Decoder hybrid = Decoder::load(context, files_, directory_ / "hybrid", compute());
  const Decoder target = Decoder::load(context, files_, directory_ / "target", compute());
  const TokenBatch batch = batch_of({20, 33});
  const auto logits = [&](const Decoder& of, MlpSource mlp) {
    return logits_of(context, of, uniform_splice(target_.layers, {.mlp = mlp}), batch);
  };
  EXPECT_TRUE(same_bits(logits(decoder, MlpSource::kBase), logits(hybrid, MlpSource::kTarget)));
  EXPECT_TRUE(same_bits(logits(decoder, MlpSource::kTarget), logits(target, MlpSource::kTarget)));
  EXPECT_TRUE(same_bits(logits(target, MlpSource::kBase), logits(target, MlpSource::kTarget))) << "a model alone";
  EXPECT_FALSE(same_bits(logits(decoder, MlpSource::kBase), logits(decoder, MlpSource::kTarget)));
}

/// Adds a constant to every row of one layer and notes what it is shown.
class ConstantBranch : public AdapterBranch {
 public:
  ConstantBranch(int layer, float value) : layer_(layer), value_(value) {}
  void add_output(Context& context, int layer, const TokenBatch& batch, const Tensor& mlp_in,
                  const Tensor& mlp_out) override {
    layers_seen.push_back(layer);
    EXPECT_EQ(mlp_in.shape(), mlp_out.shape());
    EXPECT_EQ(mlp_in.size(0), batch.tokens());
    if (layer != layer_) return;
    std::vector<float> values(static_cast<std::size_t>(mlp_out.elements()), value_);
    add_to(context, DeviceView(context, Tensor::of(std::span(values), mlp_out.shape())).tensor(), mlp_out);
  }
  std::vector<int> layers_seen;

 private:
  int layer_;
  float value_;
};

TEST_P(DecoderTest, AnAdapterOfZerosChangesNothing) {
  Context context = this->context();
  const Decoder decoder = pair(context);
  const TokenBatch batch = batch_of({20, 33});
  ConstantBranch zeros(1, 0.0f), ones(1, 1.0f);
  const auto logits = [&](AdapterBranch* adapter) {
    return logits_of(context, decoder, uniform_splice(target_.layers, {MlpSource::kBase, adapter}), batch);
  };
  EXPECT_TRUE(same_bits(logits(&zeros), logits(nullptr)));
  EXPECT_FALSE(same_bits(logits(&ones), logits(nullptr)));
  EXPECT_THAT(zeros.layers_seen, ::testing::ElementsAre(0, 1, 2));
}

TEST_P(DecoderTest, TheBaseAloneSharesThePairsMlps) {
  Context context = this->context();
  const Decoder decoder = pair(context);
  const Decoder whole = Decoder::load(context, files_, directory_ / "base", compute());
  TinyTensors trunk = tiny_tensors(base_);
  std::erase_if(trunk.buffers, [](const auto& entry) { return entry.first.find(".mlp.") != std::string::npos; });
  write_tiny_model(directory_ / "base", base_, trunk.views());
  const Decoder base = decoder.load_base(context, files_, directory_ / "base");
  const TokenBatch batch = batch_of({20, 33});
  const Splice splice = uniform_splice(target_.layers, {});
  EXPECT_TRUE(same_bits(logits_of(context, base, splice, batch), logits_of(context, whole, splice, batch)));
}

TEST_P(DecoderTest, NamesTokensOutsideTheVocabulary) {
  Context context = this->context();
  const Decoder decoder = pair(context);
  for (const std::int32_t bad : {-1, 50}) {
    TokenBatch batch;
    batch.append(std::vector<std::int32_t>{3, 4, bad});
    EXPECT_ERROR(logits_of(context, decoder, uniform_splice(target_.layers, {}), batch), DataError,
                 AllOf(HasSubstr(std::to_string(bad)), HasSubstr("position 2"), HasSubstr("50")));
  }
}

TEST(DecoderLoading, NamesFileTensorAndShapes) {
  testing::TemporaryDirectory directory;
  RealFileSystem files;
  Context context = Context::cpu(1);
  const TinyModel model;
  const auto load = [&] { return Decoder::load(context, files, directory.path(), DType::kFloat32); };
  const std::string down = "model.layers.1.mlp.down_proj.weight";

  TinyTensors missing = tiny_tensors(model);
  missing.buffers.erase(down);
  write_tiny_model(directory.path(), model, missing.views());
  EXPECT_ERROR(load(), DataError, AllOf(HasSubstr(directory.path().string()), HasSubstr(down)));

  TinyTensors turned = tiny_tensors(model);
  turned.buffers.at(down) = Buffer(Device::kCpu, DType::kFloat32, {model.mlp_width, model.width});
  write_tiny_model(directory.path(), model, turned.views());
  EXPECT_ERROR(load(), DataError,
               AllOf(HasSubstr("model.safetensors"), HasSubstr(down), HasSubstr("[40, 24]"), HasSubstr("[24, 40]")));

  TinyTensors integers = tiny_tensors(model);
  integers.buffers.at("model.norm.weight") = Buffer(Device::kCpu, DType::kInt32, {model.width});
  write_tiny_model(directory.path(), model, integers.views());
  EXPECT_ERROR(load(), DataError, AllOf(HasSubstr("model.norm.weight"), HasSubstr("int32")));

  std::filesystem::remove(directory / "model.safetensors");
  EXPECT_ERROR(load(), MissingInputError, HasSubstr(directory.path().string()));
}

TEST(DecoderLoading, PairsOfDifferentShape) {
  testing::TemporaryDirectory directory;
  RealFileSystem files;
  Context context = Context::cpu(1);
  write_tiny_model(directory / "target", {});
  write_tiny_model(directory / "base", {.mlp_width = 48});
  EXPECT_ERROR(Decoder::load_pair(context, files, directory / "target", directory / "base", DType::kFloat32),
               ConfigError, AllOf(HasSubstr("intermediate_size"), HasSubstr("48"), HasSubstr("40")));
}

TEST(ForwardFlops, CountsEveryProduct) {
  testing::TinyModel model;
  const ForwardFlops flops = forward_flops(parse_decoder_config(testing::tiny_config(model), "config.json"));
  EXPECT_EQ(flops.attention_per_token, 2.0 * 24 * (24 + 12 + 12 + 24));
  EXPECT_EQ(flops.attention_per_context, 2.0 * 2 * 24);
  EXPECT_EQ(flops.mlp_per_token, 2.0 * 3 * 24 * 40);
  EXPECT_EQ(flops.head_per_token, 2.0 * 24 * 50);
}

TEST(Decoder, MemoryOfPairs) {
  const DecoderConfig seven{.architecture = nullptr,
                            .file = {},
                            .layers = 28,
                            .width = 3584,
                            .mlp_width = 18944,
                            .vocabulary = 152064,
                            .heads = 28,
                            .kv_heads = 4,
                            .head_width = 128};
  // Parameters as Qwen2.5-Math-7B's model card counts them, and the base's MLPs.
  EXPECT_EQ(pair_memory_bytes(seven, DType::kBFloat16), 2 * (7'615'616'512ull + 28 * 203'685'888ull));
  DecoderConfig small = seven;  // R1-Distill-Qwen-1.5B
  small.width = 1536;
  small.mlp_width = 8960;
  small.heads = 12;
  small.kv_heads = 2;
  small.vocabulary = 151936;
  EXPECT_EQ(pair_memory_bytes(small, DType::kBFloat16), 2 * (1'777'088'000ull + 28 * 3 * 1536 * 8960ull));
  EXPECT_EQ(pair_memory_bytes(seven, DType::kFloat32), 4 * (7'615'616'512ull + 28 * 203'685'888ull));
}

}  // namespace
}  // namespace tadapt
