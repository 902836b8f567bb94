#include "runtime/plan/calibration.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <functional>

#include "kernels/core/memory.h"
#include "runtime/comm/pairwise_plan.h"
#include "runtime/loss/head_losses.h"
#include "runtime/model/recorded_segment.h"
#include "runtime/optim/adamw_state.h"
#include "runtime/plan/estimate.h"
#include "runtime/plan/grid_cost.h"

namespace tadapt {
namespace {

constexpr std::int64_t kMostWidth = 1024, kMostFeatures = 2048, kMostLeafTokens = 1024, kMostMlpWidth = 4096,
                       kMostVocabulary = 8192, kMostSequenceTokens = 2048, kBatchTokens = 512;

double seconds_of(const std::function<void()>& run) {
  const auto start = std::chrono::steady_clock::now();
  run();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// The median of runs, the first not counted.
double median_seconds(const std::function<void()>& run) {
  constexpr std::size_t kLeastRuns = 5;
  constexpr double kLeastSeconds = 0.08;
  run();
  std::vector<double> seconds;
  double all = 0.0;
  while (seconds.size() < kLeastRuns || all < kLeastSeconds) all += seconds.emplace_back(seconds_of(run));
  return median(std::move(seconds));
}

/// The mean of so many, for what all ranks must do equally often.
double mean_seconds(int runs, const std::function<void()>& run) {
  run();
  return seconds_of([&] {
           for (int i = 0; i < runs; ++i) run();
         }) /
         runs;
}

double update_seconds(Context& context, const StepSetting& setting) {
  const auto adapter = make_adapter("transcoder", setting.shape, {setting.compute, 1.0});
  ParameterStore store(context.device(), {adapter->parameters("layer")});
  AdamWState optimiser(context.device(), store);
  const ParameterTensors masters = store.master_views(0);
  adapter->initialise(context, masters, 1, 0);
  std::int64_t step = 0;
  return median_seconds([&] {
    optimiser.measure(context, store, 0);
    optimiser.square_norm(context, 0);
    optimiser.update(context, store, 0, {}, {.learning_rate = 1e-6, .step = step++});
    adapter->prepare(context, masters);
    synchronize(context);
  });
}

/// One layer of random numbers over a batch of whole sequences.
class LayerTimer {
 public:
  LayerTimer(Context& context, const ModelSetting& setting)
      : context_(context),
        pair_(Decoder::make_pair(context, setting.config, RandomWeights(1), RandomWeights(2),
                                 {setting.compute, setting.directions})),
        workspace_(context.device()),
        arena_(context.device()),
        head_(std::int64_t{1} << 28) {
    TokenBatch batch;
    while (batch.tokens() < kBatchTokens)
      batch.append(std::vector<std::int32_t>(static_cast<std::size_t>(setting.sequence_tokens), 0));
    const auto rows = batch.tokens();
    arena_.reserve(RecordedSegment::bytes(setting.config, Recording::kAll, 1, rows));
    tokens_.place(context, batch, 1);
    for (Buffer* values : {&input_, &cotangent_})
      *values = Buffer(context.device(), DType::kFloat32, {rows, setting.config.width});
    pair_.embed(context, tokens_.of(1), input_.tensor());
    weights_ = Buffer(context.device(), DType::kFloat32, {rows});
    losses_ = Buffer(context.device(), DType::kFloat64, {rows});
  }

  std::int64_t rows() const { return tokens_.tokens(); }

  void run(Recording recording) {
    RecordedSegment segment(
        context_, {workspace_, arena_, passes_},
        {.decoder = pair_, .mlps = mlps_, .trained = nullptr, .begin = 0, .end = 1, .recording = recording}, tokens_,
        1);
    copy(context_, input_.tensor(), segment.input());
    segment.forward({});
    if (recording != Recording::kNothing)
      segment.backward({.branches = {0, 1}, .wanted = 1, .cotangent = cotangent_.tensor(), .on_state = {}});
    synchronize(context_);
  }

  /// Two heads forwards, one backwards.
  void run_head() {
    const HeadBranch branch{.decoder = &pair_,
                            .residual = input_.tensor(),
                            .kl_weights = weights_.tensor(),
                            .kl = losses_.tensor(),
                            .cotangent = cotangent_.tensor()};
    head_.value_and_gradient(context_, workspace_,
                             {.target = pair_, .target_residual = input_.tensor(), .labels = Tensor()}, {&branch, 1});
    synchronize(context_);
  }

 private:
  Context& context_;
  Decoder pair_;
  Workspace workspace_;
  Arena arena_;
  HeadLosses head_;
  BranchTokens tokens_;
  Buffer input_, cotangent_, weights_, losses_;
  std::vector<MlpSource> mlps_ = {MlpSource::kTarget};
  std::int64_t passes_ = 0;
};

}  // namespace

StepSetting measurable(const StepSetting& setting) {
  return {.shape = {.model_width = std::min(setting.shape.model_width, kMostWidth),
                    .features = std::min(setting.shape.features, kMostFeatures)},
          .tokens = std::min(setting.tokens, kMostLeafTokens),
          .compute = setting.compute};
}

ModelSetting measurable(const ModelSetting& setting) {
  ModelSetting small = setting;
  DecoderConfig& config = small.config;
  config.layers = 1;
  config.mlp_width = std::min(config.mlp_width, kMostMlpWidth);
  config.vocabulary = std::min(config.vocabulary, kMostVocabulary);
  if (config.width > kMostWidth) {
    const std::int64_t group = config.heads / config.kv_heads;
    config.kv_heads = std::max<std::int64_t>(1, kMostWidth / config.head_width / group);
    config.heads = config.kv_heads * group;
    config.width = kMostWidth;
  }
  small.sequence_tokens = std::clamp<std::int64_t>(setting.sequence_tokens, 1, kMostSequenceTokens);
  return small;
}

void measure_adapter(Context& context, const StepSetting& setting, MachineRates& rates) {
  const double products = 2.0 * static_cast<double>(setting.tokens) * static_cast<double>(setting.shape.model_width) *
                          static_cast<double>(setting.shape.features);
  StepTimer dense(context, setting, 0.0);
  dense.set_l0(static_cast<double>(setting.shape.features) / 10.0);
  rates.flops_per_second = 5.0 * products / median_seconds([&] { dense.seconds(); });

  StepTimer sparse(context, setting, 2.0 * static_cast<double>(setting.shape.features));
  const auto seconds_at = [&](double l0) {
    sparse.set_l0(l0);
    return median_seconds([&] { sparse.seconds(); });
  };
  const double few = static_cast<double>(setting.shape.features) / 512.0;
  const double few_seconds = seconds_at(few), few_active = sparse.l0();
  const double many_seconds = seconds_at(32.0 * few), many_active = sparse.l0();
  // Where noise hides what pairs cost they cost next to nothing.
  const double pair_seconds = std::max((many_seconds - few_seconds) / (many_active - few_active), 1e-3 * few_seconds);
  const double pair_flops = 8.0 * static_cast<double>(setting.tokens) * static_cast<double>(setting.shape.model_width);
  rates.pair_flops_per_second = pair_flops / pair_seconds;
  rates.encoder_flops_per_second = products / std::max(few_seconds - few_active * pair_seconds, 0.1 * few_seconds);

  const AdapterWork update{.width = setting.shape.model_width, .features = setting.shape.features};
  MachineRates unit;
  unit.memory_bytes_per_second = 1.0;
  rates.memory_bytes_per_second = adapter_seconds(update, unit).update / update_seconds(context, setting);
}

void measure_model(Context& context, const ModelSetting& setting, MachineRates& rates) {
  LayerTimer timer(context, setting);
  const ForwardFlops flops = forward_flops(setting.config);
  const double layer = static_cast<double>(timer.rows()) *
                       (flops.attention_per_token + flops.mlp_per_token +
                        flops.attention_per_context * static_cast<double>(setting.sequence_tokens + 1) / 2.0);
  const double forward = median_seconds([&] { timer.run(Recording::kNothing); });
  rates.forward_flops_per_second = layer / forward;
  if (setting.directions == Directions::kForward) return;
  const double both = median_seconds([&] { timer.run(Recording::kAll); });
  rates.backward_flops_per_second = layer / std::max(both - forward, 0.1 * both);
  rates.head_flops_per_second =
      3.0 * static_cast<double>(timer.rows()) * flops.head_per_token / median_seconds([&] { timer.run_head(); });
}

void measure_exchange(Communicator& world, MachineRates& rates) {
  if (world.size() == 1) return;
  constexpr std::int64_t kNumbers = std::int64_t{1} << 20;
  constexpr int kSums = 8, kMessages = 50;
  Buffer values(Device::kCpu, DType::kFloat32, {kNumbers});
  const int ranks = std::bit_floor(static_cast<unsigned>(world.size()));
  const auto group = world.split(world.rank() / ranks, world.rank(), "calibration");
  if (group->size() == ranks) {
    const double bytes = static_cast<double>(sent_bytes(Collective::kSum, group->rank(), ranks, kNumbers));
    rates.exchange_bytes_per_second =
        bytes / mean_seconds(kSums, [&] { group->start_sum(values.tensor(), "calibration")->wait(); });
  }
  const double one = 0.0;
  const double seconds = mean_seconds(kMessages, [&] { world.all_gather({&one, 1}, "calibration"); });
  rates.seconds_per_message = seconds / std::ceil(std::log2(world.size()));
}

void calibrate(Context& context, Communicator& world, const CalibrationSetting& setting, MachineRates& rates) {
  if (setting.adapter) measure_adapter(context, measurable(*setting.adapter), rates);
  if (setting.model) measure_model(context, measurable(*setting.model), rates);
  measure_exchange(world, rates);
  std::vector<double> mine;
  for (const NamedRate& one : kRates) mine.push_back(rates.*one.rate);
  const std::vector<double> all = world.all_gather(mine, "rates");
  for (std::size_t i = 0; i < mine.size(); ++i)
    for (std::size_t at = i; at < all.size(); at += mine.size()) {
      double& rate = rates.*kRates[i].rate;
      rate = kRates[i].rate == &MachineRates::seconds_per_message ? std::max(rate, all[at]) : std::min(rate, all[at]);
    }
}

}  // namespace tadapt
