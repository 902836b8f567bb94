// Faithfulness against a double-precision recomputation, and what must hold whatever the models: zero adapters change
// nothing, the target agrees with itself, what is not finite is named.
#include "runtime/eval/faithfulness.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "runtime/eval/evaluation.h"
#include "runtime/model/segments.h"
#include "tests/eval/random_bundle.h"
#include "tests/support/devices.h"
#include "tests/support/errors.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/thread_communicator.h"
#include "tests/support/tiny_models.h"

namespace tadapt {
namespace {
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr std::int64_t kFeatures = 12;

class FaithfulnessTest : public testing::PerDevice {
 protected:
  void SetUp() override {
    PerDevice::SetUp();
    if (IsSkipped()) return;
    context_.emplace(testing::context_on(GetParam(), 2));
    const std::filesystem::path toy = std::filesystem::path(TADAPT_SOURCE_DIR) / "data" / "toy";
    const Tokenizer tokenizer = Tokenizer::load(files_, toy / "target");
    model_ = {.vocabulary = tokenizer.vocabulary_size(), .seed = 2};
    testing::write_tiny_model(folder_ / "base", model_);
    model_.seed = 1;
    testing::write_tiny_model(folder_ / "target", model_);
    std::string lines = read_text(files_, toy / "validation.jsonl");
    std::size_t end = 0;
    for (int line = 0; line < (is_cpu() ? 5 : 2); ++line) end = lines.find('\n', end) + 1;
    lines.resize(end);
    write_atomically(files_, folder_ / "corpus.jsonl", lines);
    corpus_ = TokenDataset::build(files_, folder_ / "corpus.jsonl", tokenizer, {.max_tokens = is_cpu() ? 40 : 12});
    pair_ = Decoder::load_pair(*context_, files_, folder_ / "target", folder_ / "base", DType::kFloat32);
    base_ = pair_->load_base(*context_, files_, folder_ / "base");
  }
  bool is_cpu() const { return GetParam() == Device::kCpu; }

  static AdapterBundle bundle(float spread) { return testing::random_bundle({0, 2}, {24, kFeatures}, spread); }

  FaithfulnessReport evaluate(Context& context, const AdapterBundle& adapters, Communicator& world,
                              std::int64_t batch_tokens) {
    AdapterSet set(context, adapters, DType::kFloat32);
    FaithfulnessOptions options;
    options.batch_tokens = batch_tokens;
    options.logits_budget_bytes = 1 << 16;
    return evaluate_faithfulness(context, world, {*pair_, &*base_, "", set}, *corpus_, options);
  }
  FaithfulnessReport evaluate(const AdapterBundle& adapters) {
    SelfCommunicator self;
    return evaluate(*context_, adapters, self, 64);
  }

  RealFileSystem files_;
  testing::TemporaryDirectory folder_;
  testing::TinyModel model_;  // the target
  std::optional<Context> context_;
  std::optional<TokenDataset> corpus_;
  std::optional<Decoder> pair_, base_;
};

INSTANTIATE_TEST_SUITE_P(Device, FaithfulnessTest, testing::kEachDevice, testing::device_name);

/// What does not depend on where it was computed.
class FaithfulnessOnCpu : public FaithfulnessTest {};
INSTANTIATE_TEST_SUITE_P(Device, FaithfulnessOnCpu, ::testing::Values(Device::kCpu), testing::device_name);

std::vector<double> log_softmax(std::span<const float> logits) {
  double largest = -INFINITY, sum = 0.0;
  for (const float logit : logits) largest = std::max(largest, static_cast<double>(logit));
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - largest);
  std::vector<double> result;
  for (const float logit : logits) result.push_back(static_cast<double>(logit) - largest - std::log(sum));
  return result;
}

TEST_P(FaithfulnessTest, TokenKlEqualsARecomputationInDouble) {
  const FaithfulnessReport report = evaluate(bundle(0.3f));
  ASSERT_EQ(report.models.size(), 4u);
  const ModelAgreement& hybrid = report.models[1];
  double kl = 0.0, differing = 0.0, tokens = 0.0, response_tokens = 0.0;
  for (std::int64_t i = 0; i < corpus_->size(); ++i) {
    const TokenSequence sequence = corpus_->sequence(i);
    TokenBatch batch;
    batch.append(sequence.ids);
    const std::vector<Segment> segments = {
        {.splice = uniform_splice(3, {}), .begin = 0, .end = 3},
        {.splice = uniform_splice(3, {.mlp = MlpSource::kBase}), .begin = 0, .end = 3}};
    const ResidualStates states =
        SegmentRunner(*context_, *pair_).run(segments, batch, {.keep = {{0, 3}, {1, 3}}, .observe = {}});
    const std::vector<LogitsSource> sources = {{&*pair_, states.at({0, 3})}, {&*pair_, states.at({1, 3})}};
    for_each_logits_chunk(*context_, sources, 1 << 24, [&](const LogitsChunk& chunk) {
      const std::vector<float> target = on_host<float>(*context_, chunk.logits[0]),
                               model = on_host<float>(*context_, chunk.logits[1]);
      const auto vocabulary = static_cast<std::size_t>(chunk.logits[0].size(1));
      for (std::int64_t row = chunk.begin; row < std::min(chunk.end, batch.tokens() - 1); ++row) {
        const auto at = static_cast<std::size_t>(row - chunk.begin) * vocabulary;
        const auto p = log_softmax(std::span(target).subspan(at, vocabulary));
        const auto q = log_softmax(std::span(model).subspan(at, vocabulary));
        for (std::size_t v = 0; v < vocabulary; ++v) kl += std::exp(p[v]) * (p[v] - q[v]);
        differing += std::ranges::max_element(p) - p.begin() != std::ranges::max_element(q) - q.begin() ? 1.0 : 0.0;
        tokens += 1.0;
        response_tokens += row + 1 >= sequence.response_start ? 1.0 : 0.0;
      }
    });
  }
  EXPECT_EQ(hybrid.all.tokens, tokens);
  EXPECT_EQ(hybrid.response.tokens, response_tokens);
  EXPECT_GT(kl, 0.0);
  EXPECT_NEAR(hybrid.all.kl, kl, 1e-4 * kl);
  EXPECT_EQ(hybrid.all.disagreements, differing);
}

TEST_P(FaithfulnessTest, ZeroAdaptersLeaveBaseMlpsInTheirLayers) {
  const FaithfulnessReport report = evaluate(bundle(0.0f));
  const auto partial = [&](const std::string& name) {
    return *std::ranges::find(report.partial, name, &ModelAgreement::name);
  };
  // Layer 1 has no adapter and keeps the target's MLP.
  EXPECT_EQ(partial("only layer 1").all.kl, 0.0);
  EXPECT_GT(partial("only layer 0").all.kl, 0.0);
  EXPECT_EQ(partial("first 3").all.kl, report.models[2].all.kl);
  EXPECT_EQ(partial("last 3").all.kl, report.models[2].all.kl);
  for (const LayerFaithfulness& layer : report.layers) {
    EXPECT_DOUBLE_EQ(layer.delta_nmse, 1.0);
    EXPECT_EQ(layer.l0, 0.0);
    EXPECT_EQ(layer.dead_share, 1.0);
  }
  EXPECT_EQ(report.adapter_residual_nmse.front(), 0.0);
  EXPECT_EQ(report.models[3].name, "target");
  EXPECT_EQ(report.models[3].all.kl, 0.0);
}

TEST_P(FaithfulnessOnCpu, RanksAndBatchSizesChangeNoBit) {
  const AdapterBundle adapters = bundle(0.3f);
  const FaithfulnessReport reference = evaluate(adapters);
  testing::run_ranks(3, [&](Communicator& world) {
    Context context = Context::cpu(1);
    const FaithfulnessReport report = evaluate(context, adapters, world, 1);
    for (std::size_t i = 0; i < report.models.size(); ++i) {
      EXPECT_EQ(report.models[i].all.kl, reference.models[i].all.kl);
      EXPECT_EQ(report.models[i].uncertain.tokens, reference.models[i].uncertain.tokens);
    }
    EXPECT_EQ(report.adapter_residual_nmse, reference.adapter_residual_nmse);
    for (std::size_t i = 0; i < report.layers.size(); ++i) {
      EXPECT_EQ(report.layers[i].delta_nmse, reference.layers[i].delta_nmse);
      EXPECT_EQ(report.layers[i].dead_share, reference.layers[i].dead_share);
    }
  });
}

void expect_near(const Agreement& found, const Agreement& expected) {
  EXPECT_EQ(found.tokens, expected.tokens);
  EXPECT_NEAR(found.kl, expected.kl, 1e-4 * expected.kl + 1e-6 * expected.tokens);
  EXPECT_EQ(found.disagreements, expected.disagreements);
}

TEST_P(FaithfulnessTest, EqualsTheCpusReport) {
  const AdapterBundle adapters = bundle(0.3f);
  const FaithfulnessReport found = evaluate(adapters);
  Context cpu = Context::cpu(1);
  pair_ = Decoder::load_pair(cpu, files_, folder_ / "target", folder_ / "base", DType::kFloat32);
  base_ = pair_->load_base(cpu, files_, folder_ / "base");
  SelfCommunicator self;
  const FaithfulnessReport expected = evaluate(cpu, adapters, self, 1);
  const auto expect_models = [](const auto& models, const auto& others) {
    ASSERT_EQ(models.size(), others.size());
    for (std::size_t i = 0; i < models.size(); ++i) {
      SCOPED_TRACE(models[i].name);
      expect_near(models[i].all, others[i].all);
      expect_near(models[i].response, others[i].response);
      expect_near(models[i].uncertain, others[i].uncertain);
    }
  };
  expect_models(found.models, expected.models);
  expect_models(found.partial, expected.partial);
  for (std::size_t i = 0; i < expected.hybrid_residual_nmse.size(); ++i) {
    EXPECT_NEAR(found.hybrid_residual_nmse[i], expected.hybrid_residual_nmse[i], 1e-4);
    EXPECT_NEAR(found.adapter_residual_nmse[i], expected.adapter_residual_nmse[i], 1e-4);
  }
  for (std::size_t i = 0; i < expected.layers.size(); ++i) {
    EXPECT_NEAR(found.layers[i].delta_nmse, expected.layers[i].delta_nmse, 1e-4);
    EXPECT_EQ(found.layers[i].l0, expected.layers[i].l0);
    EXPECT_EQ(found.layers[i].dead_share, expected.layers[i].dead_share);
  }
}

TEST_P(FaithfulnessTest, WhatIsNotFiniteIsNamed) {
  AdapterBundle broken = bundle(0.3f);
  broken.layers[1].store->master_views(0)["b_dec"].span<float>()[3] = INFINITY;
  EXPECT_ERROR(evaluate(broken), NonFiniteError,
               AllOf(HasSubstr("line 1 of the corpus"), HasSubstr("the adapter model after layer 2 is not finite")));
  testing::TinyTensors tensors = testing::tiny_tensors(model_);
  tensors.buffers.at("lm_head.weight").span<float>()[0] = INFINITY;
  testing::write_tiny_model(folder_ / "broken", model_, tensors.views());
  pair_ = Decoder::load_pair(*context_, files_, folder_ / "broken", folder_ / "base", DType::kFloat32);
  EXPECT_ERROR(evaluate(bundle(0.3f)), NonFiniteError, HasSubstr("logits of the target"));
}

TEST_P(FaithfulnessOnCpu, AStopIsHeardBeforeABatch) {
  const AdapterBundle adapters = bundle(0.1f);
  AdapterSet set(*context_, adapters, DType::kFloat32);
  SelfCommunicator self;
  FaithfulnessOptions options;
  int asked = 0;
  options.batch_tokens = 40;
  options.stop_requested = [&] { return ++asked == 2; };
  try {
    evaluate_faithfulness(*context_, self, {*pair_, &*base_, "", set}, *corpus_, options);
    FAIL() << "it went on";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kRequeue);
  }
  EXPECT_EQ(asked, 2);
}

TEST_P(FaithfulnessOnCpu, TablesShowThreeDigitsAndNothingForNoTokens) {
  FaithfulnessReport report = evaluate(bundle(0.3f));
  report.models[2].response = {.tokens = 1000, .kl = 0.0123456, .disagreements = 0};
  report.models[2].uncertain = {};
  EXPECT_THAT(to_table(report), HasSubstr("adapter          1.23e-05     0.00 %          -          -"));
  const std::string json = to_json({.subject = {{"step", 7}}, .report = report});
  EXPECT_THAT(json, AllOf(HasSubstr("\"step\": 7"), HasSubstr("\"tokens\": 1000,")));
}

}  // namespace
}  // namespace tadapt
