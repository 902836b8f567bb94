// The bridging pass against PyTorch's autograd, and its schedule against one in which each term has its own passes.
#include <map>
#include <numeric>

#include "tests/adapters/bridging_fixture.h"

namespace tadapt {
namespace {

using testing::batch_of;
using testing::bridging_cases;
using testing::bridging_golden;
using testing::BridgingFixture;
using testing::BridgingSetup;
using testing::Gradients;
using testing::relative_error;

constexpr double kMany = 1e9;

BridgingWeights weights_of(const nlohmann::json& one) {
  return {.kl_adapter = one.at("kl_adapter"),
          .kl_bridge = one.at("kl_bridge"),
          .residual_nmse = one.at("residual_nmse"),
          .nmse_over_states = one.at("nmse") == "mean" ? OverStates::kMean : OverStates::kSum,
          .label = one.at("label"),
          .sparsity = one.at("sparsity")};
}

double residual_nmse(const BridgingValue& value) {
  return std::accumulate(value.residual_nmse.begin(), value.residual_nmse.end(), 0.0);
}

double loss_of(const BridgingValue& value, const BridgingWeights& weights, const BatchCounts& whole) {
  const auto labels = static_cast<double>(whole.labels);
  double sparsity = 0;
  for (const double one : value.weighted_activations) sparsity += one;
  return (weights.kl_adapter * value.kl_adapter + weights.kl_bridge * (value.kl_a2r + value.kl_r2a) +
          weights.label * value.label) /
             labels +
         weights.residual_nmse * residual_nmse(value) / static_cast<double>(whole.sequences) +
         weights.sparsity * sparsity / static_cast<double>(whole.tokens);
}

struct Setup {
  const char* name;
  Device device;
  BridgingSetup setup;
};

class BridgingTest : public ::testing::TestWithParam<Setup> {
 protected:
  void SetUp() override {
    if (GetParam().device == Device::kCuda && !testing::has_gpu()) GTEST_SKIP() << "no GPU here";
  }
};

INSTANTIATE_TEST_SUITE_P(
    Ways, BridgingTest,
    ::testing::Values(Setup{"cpu_dense", Device::kCpu, {}},
                      Setup{"cpu_sparse_recomputed",
                            Device::kCpu,
                            {.sparse_below = kMany, .recording = Recording::kAllButHidden, .logits_budget_bytes = 700}},
                      Setup{"cuda_dense_recomputed",
                            Device::kCuda,
                            {.recording = Recording::kAllButHidden, .logits_budget_bytes = 700}},
                      Setup{"cuda_sparse", Device::kCuda, {.sparse_below = kMany}}),
    [](const auto& one) { return std::string(one.param.name); });

TEST_P(BridgingTest, TermsAndGradientsAreThoseOfAutograd) {
  const nlohmann::json golden = bridging_cases();
  const TokenBatch batch = batch_of(golden.at("sequences"));
  const SafetensorsFile expected(bridging_golden() / "golden.safetensors");
  BridgingFixture fixture(GetParam().device, GetParam().setup);
  for (std::size_t index = 0; index < golden.at("cases").size(); ++index) {
    const nlohmann::json& one = golden.at("cases")[index];
    SCOPED_TRACE(one.dump());
    const BridgingWeights weights = weights_of(one);
    const auto cutoffs = one.at("cutoffs").get<std::vector<int>>();
    const auto found =
        fixture.run(batch, cutoffs, weights, one.at("backbone") == "base" ? Backbone::kBase : Backbone::kTarget);
    const auto expect_term = [&](double value, const char* name) {
      const double truth = one.at(fmt::format("found_{}", name));
      EXPECT_NEAR(value, truth, 1e-5 * std::abs(truth) + 1e-6) << name;
    };
    if (weights.kl_adapter > 0) expect_term(found.value.kl_adapter, "kl_adapter");
    if (weights.kl_bridge > 0) expect_term(found.value.kl_a2r, "kl_a2r");
    if (weights.kl_bridge > 0) expect_term(found.value.kl_r2a, "kl_r2a");
    if (weights.label > 0) expect_term(found.value.label, "label");
    expect_term(residual_nmse(found.value), "residual_nmse");
    EXPECT_NEAR(loss_of(found.value, weights, counts_of(batch)), one.at("loss"), 1e-5 * one.at("loss").get<double>());
    for (std::size_t layer = 0; layer < fixture.layers(); ++layer) {
      const ParameterTensors parts = parameter_views(
          fixture.store().group(layer),
          Tensor::of(std::span(const_cast<float*>(found.gradients[layer].data()), found.gradients[layer].size()),
                     {static_cast<std::int64_t>(found.gradients[layer].size())}));
      for (const auto& [name, tensor] : parts.entries()) {
        const Tensor truth = expected.tensor(fmt::format("{}.{}.{}", index, layer, name));
        const std::vector<float> a(tensor.span<float>().begin(), tensor.span<float>().end());
        const std::vector<float> b(truth.span<float>().begin(), truth.span<float>().end());
        EXPECT_LT(relative_error({a}, {b}), 3e-5) << "layer " << layer << ": " << name;
      }
    }
    const BridgingSchedule schedule(3, one.at("backbone") == "base" ? Backbone::kBase : Backbone::kTarget, cutoffs);
    EXPECT_EQ(found.layer_passes, layer_passes(schedule));
    EXPECT_EQ(fixture.filled(), (std::vector<std::size_t>{2, 1, 0}));
  }
}

/// Each term by passes of its own, from the tokens on, forwards and backwards.
class NaiveSchedule {
 public:
  NaiveSchedule(BridgingFixture& fixture, const TokenBatch& batch, const BridgingWeights& weights)
      : fixture_(fixture),
        batch_(batch),
        weights_(weights),
        whole_(counts_of(batch)),
        workspace_(fixture.context().device()),
        arena_(fixture.context().device()),
        head_(1 << 20),
        adapter_mlps_(fixture.layers(), MlpSource::kBase),
        target_mlps_(fixture.layers(), MlpSource::kTarget) {
    arena_.reserve(64 << 20);
    tokens_.place(fixture.context(), batch, 1);
    const RecordedSegment& target = forwards(nullptr, Tensor(), 0, layers());
    target_last_ = arena_.take(DType::kFloat32, target.output().shape());
    copy(fixture_.context(), target.output(), target_last_);
  }

  void add_adapter() {
    RecordedSegment& run = forwards(&begin(), Tensor(), 0, layers());
    backwards(run, {}, kl(run.output(), weights_.kl_adapter));
  }
  void add_a2r(int k) {
    RecordedSegment& run = forwards(&begin(), Tensor(), 0, k);
    RecordedSegment& rest = forwards(nullptr, run.output(), k, layers());
    const Tensor cotangent = kl(rest.output(), weights_.kl_bridge);
    rest.backward({.branches = {0, 1}, .wanted = 1, .cotangent = cotangent, .on_state = {}});
    backwards(run, {}, cotangent);
  }
  void add_r2a(int k) {
    RecordedSegment& run = forwards(nullptr, Tensor(), 0, k);
    RecordedSegment& rest = forwards(&begin(), run.output(), k, layers());
    backwards(rest, {}, kl(rest.output(), weights_.kl_bridge));
  }
  void add_residual_error() {
    ResidualNmse nmse(layers() + 1, weights_.nmse_over_states);
    nmse.begin(fixture_.context(), batch_);
    auto target = plan_segment(nullptr, 0, layers());
    start(*target, Tensor());
    std::vector<Tensor> states;
    target->forward([&](int state, const Tensor& values) {
      nmse.observe_target(fixture_.context(), state, values);
      states.push_back(values);
    });
    nmse.ready(fixture_.context(), weights_.residual_nmse / static_cast<double>(whole_.sequences));
    RecordedSegment& run = forwards(&begin(), Tensor(), 0, layers());
    const Tensor cotangent = arena_.take(DType::kFloat32, run.output().shape());
    clear(fixture_.context(), cotangent);
    backwards(
        run,
        [&](int state, const Tensor& values, const Tensor& towards) {
          nmse.add_cotangent(fixture_.context(), state, values, states[static_cast<std::size_t>(state)], towards);
        },
        cotangent);
  }
  const Gradients& sum() const { return sum_; }

 private:
  int layers() const { return static_cast<int>(fixture_.layers()); }
  AdapterTape& begin() {
    tapes_.push_back(fixture_.tape(fixture_.all_layers(), {.tokens = batch_.tokens()}));
    weighted_ = Buffer(fixture_.context().device(), DType::kFloat64, {layers()});
    AdapterTape::Leaf leaf = fixture_.leaf();
    leaf.weighted_activations = weighted_.tensor();
    for (int layer = 0; layer < layers(); ++layer)
      clear(fixture_.context(), fixture_.store().gradient(static_cast<std::size_t>(layer)));
    tapes_.back()->begin(std::move(leaf));
    return *tapes_.back();
  }
  std::unique_ptr<RecordedSegment> plan_segment(AdapterTape* adapters, int first, int last) {
    return std::make_unique<RecordedSegment>(fixture_.context(), PassMemory{workspace_, arena_, layer_passes_},
                                             SegmentPlan{.decoder = fixture_.pair(),
                                                         .mlps = adapters == nullptr ? target_mlps_ : adapter_mlps_,
                                                         .trained = adapters,
                                                         .begin = first,
                                                         .end = last},
                                             tokens_, 1);
  }
  void start(RecordedSegment& segment, const Tensor& from) {
    if (from.empty())
      fixture_.pair().embed(fixture_.context(), tokens_.of(1), segment.input());
    else
      copy(fixture_.context(), from, segment.input());
  }
  RecordedSegment& forwards(AdapterTape* adapters, const Tensor& from, int first, int last) {
    kept_.push_back(plan_segment(adapters, first, last));
    start(*kept_.back(), from);
    kept_.back()->forward({});
    return *kept_.back();
  }
  Tensor kl(const Tensor& last, double weight) {
    Context& context = fixture_.context();
    const std::int64_t rows = batch_.tokens();
    std::vector<float> host(static_cast<std::size_t>(rows),
                            static_cast<float>(weight / static_cast<double>(whole_.labels)));
    for (std::size_t i = 1; i < batch_.offsets.size(); ++i) host[static_cast<std::size_t>(batch_.offsets[i]) - 1] = 0;
    const Tensor weights = arena_.take(DType::kFloat32, {rows});
    copy(context, Tensor::of(std::span(host), {rows}), weights);
    synchronize(context);
    const Tensor cotangent = arena_.take(DType::kFloat32, last.shape());
    clear(context, cotangent);
    const HeadBranch branch{.decoder = &fixture_.pair(),
                            .residual = last,
                            .kl_weights = weights,
                            .kl = arena_.take(DType::kFloat64, {rows}),
                            .cotangent = cotangent};
    head_.value_and_gradient(context, workspace_,
                             {.target = fixture_.pair(), .target_residual = target_last_, .labels = Tensor()},
                             {&branch, 1});
    return cotangent;
  }
  void backwards(RecordedSegment& run, const RecordedSegment::OnCotangent& on_state, const Tensor& cotangent) {
    run.backward({.branches = {0, 1}, .wanted = 0, .cotangent = cotangent, .on_state = on_state});
    const Gradients found = fixture_.gradients();
    if (sum_.empty()) sum_.resize(found.size());
    for (std::size_t layer = 0; layer < found.size(); ++layer) {
      sum_[layer].resize(found[layer].size());
      for (std::size_t i = 0; i < found[layer].size(); ++i) sum_[layer][i] += found[layer][i];
    }
  }

  BridgingFixture& fixture_;
  const TokenBatch& batch_;
  BridgingWeights weights_;
  BatchCounts whole_;
  Workspace workspace_;
  Arena arena_;
  std::int64_t layer_passes_ = 0;
  HeadLosses head_;
  BranchTokens tokens_;
  std::vector<MlpSource> adapter_mlps_, target_mlps_;
  Tensor target_last_;
  Buffer weighted_;
  Gradients sum_;
  std::vector<std::unique_ptr<AdapterTape>> tapes_;
  std::vector<std::unique_ptr<RecordedSegment>> kept_;
};

TEST_P(BridgingTest, OneScheduleEqualsEachTermAlone) {
  const TokenBatch batch = batch_of(bridging_cases().at("sequences"));
  const BridgingWeights weights{.sparsity = 0.0};
  BridgingFixture fixture(GetParam().device, GetParam().setup);
  for (int k = 0; k <= static_cast<int>(fixture.layers()); ++k) {
    const auto minimal = fixture.run(batch, {k}, weights, Backbone::kTarget);
    NaiveSchedule naive(fixture, batch, weights);
    naive.add_adapter();
    if (k > 0) naive.add_a2r(k);
    if (k < static_cast<int>(fixture.layers())) naive.add_r2a(k);
    naive.add_residual_error();
    EXPECT_LT(relative_error(minimal.gradients, naive.sum()), 2e-6) << "cutoff " << k;
  }
}

TEST(BridgingSchedule, MeansOneHundredAndThirtySixPassesOverTwentyEightLayers) {
  std::int64_t passes = 0;
  for (int k = 0; k <= 28; ++k) passes += layer_passes(BridgingSchedule(28, Backbone::kTarget, std::vector{k}));
  EXPECT_NEAR(static_cast<double>(passes) / 29.0, 136.0, 0.5);
}

TEST(BridgingSchedule, CutoffsAreUniformAndDependOnSeedAndStepAlone) {
  std::map<int, int> seen;
  for (std::int64_t step = 0; step < 5000; ++step) {
    for (const int k : draw_cutoffs(1, step, 2, 0, 4)) ++seen[k];
    EXPECT_EQ(draw_cutoffs(1, step, 1, 0, 4)[0], draw_cutoffs(1, step, 2, 0, 4)[0]);
  }
  ASSERT_EQ(seen.size(), 5U);
  for (const auto& [k, times] : seen) EXPECT_NEAR(times, 2000, 200) << k;
  EXPECT_NE(draw_cutoffs(1, 3, 8, 1, 100), draw_cutoffs(2, 3, 8, 1, 100));
  for (const int k : draw_cutoffs(5, 9, 50, 1, 2)) EXPECT_TRUE(k == 1 || k == 2);
}

}  // namespace
}  // namespace tadapt
