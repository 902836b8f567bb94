// Training: tokens per second of the local step, dense, beside what its five products alone would reach.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <vector>

#include "kernels/core/random.h"
#include "kernels/instruction_set.h"
#include "kernels/matmul.h"
#include "runtime/loss/local_loss.h"
#include "runtime/optim/adamw_state.h"
#include "runtime/plan/step_timer.h"

namespace tadapt {
namespace {

struct Shape3 {
  std::int64_t tokens, width, features;
};

Buffer random_matrix(std::int64_t rows, std::int64_t columns, std::uint64_t sample) {
  Buffer made(Device::kCpu, DType::kBFloat16, {rows, columns});
  const RandomStream random(1, RandomPurpose::kTest, 0, sample);
  std::uint32_t index = 0;
  for (bfloat16& value : made.span<bfloat16>()) value = bfloat16(random.uniform(index++) - 0.5f);
  return made;
}

template <class Body>
double seconds(Body&& body) {
  const auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void run(Context& context, const Shape3& shape) {
  const auto adapter = make_adapter("transcoder", {shape.width, shape.features}, {DType::kBFloat16});
  ParameterStore store(Device::kCpu, {adapter->parameters("layer")});
  AdamWState optimiser(Device::kCpu, store);
  const ParameterTensors masters = store.master_views(0);
  adapter->initialise(context, masters, 1, 0);
  adapter->prepare(context, masters);
  const Buffer x = random_matrix(shape.tokens, shape.width, 1), delta = random_matrix(shape.tokens, shape.width, 2);
  LocalLossPass pass(Device::kCpu, {shape.tokens, {shape.width, shape.features}});
  const Buffer value(Device::kCpu, DType::kFloat64, {2});
  std::int64_t step = 0;
  const AdamWSettings settings{.clip_norm = 1.0};
  const auto train_step = [&] {
    pass.value_and_gradient(context, {.adapter = *adapter,
                                      .loss = {.delta_scale = 1.0, .sparsity = 1e-3, .batch_tokens = shape.tokens},
                                      .x = x.tensor(),
                                      .delta = delta.tensor(),
                                      .masters = masters,
                                      .group = store.group(0),
                                      .gradient = store.gradient(0),
                                      .value = value.tensor()});
    optimiser.measure(context, store, 0);
    const double norm = std::sqrt(optimiser.square_norm(context, 0));
    optimiser.update(context, store, 0, settings,
                     {.learning_rate = 1e-4, .step = step++, .gradient_scale = clip_scale(settings, norm)});
    adapter->prepare(context, masters);
  };

  const PackedWeights encoder = pack_weights(context, masters["W_enc"], Layout::kOutputInput, DType::kBFloat16);
  const PackedWeights decoder = pack_weights(context, masters["W_dec"], Layout::kInputOutput, DType::kBFloat16);
  Buffer features(Device::kCpu, DType::kFloat32, {shape.tokens, shape.features});
  Buffer output(Device::kCpu, DType::kFloat32, {shape.tokens, shape.width});
  Buffer gradient(Device::kCpu, DType::kFloat32, {shape.features, shape.width});
  const auto products = [&] {
    matmul(context, x.tensor(), encoder, Tensor(), Epilogue::kRelu, features.tensor());
    matmul(context, features.tensor(), decoder, Tensor(), Epilogue::kNone, output.tensor());
    matmul(context, x.tensor(), encoder, Tensor(), Epilogue::kNone, features.tensor());
    weight_gradient(context, features.tensor(), x.tensor(), DType::kBFloat16, gradient.tensor());
    weight_gradient(context, features.tensor(), x.tensor(), DType::kBFloat16, gradient.tensor());
  };

  constexpr int kRuns = 9;
  std::vector<double> step_times, product_times;
  train_step();
  products();
  for (int i = 0; i < kRuns; ++i) {
    step_times.push_back(seconds(train_step));
    product_times.push_back(seconds(products));
  }
  const double tokens = static_cast<double>(shape.tokens);
  const double flops = 10.0 * tokens * static_cast<double>(shape.width * shape.features);
  fmt::print("T {} D {} F {}: step {:.0f} tokens/s, {:.1f} GFLOP/s; its products alone {:.1f} GFLOP/s; ratio {:.2f}\n",
             shape.tokens, shape.width, shape.features, tokens / median(step_times), flops / median(step_times) * 1e-9,
             flops / median(product_times) * 1e-9, median(product_times) / median(step_times));
}

}  // namespace
}  // namespace tadapt

int main() {
  tadapt::Context context = tadapt::Context::cpu(tadapt::threads_per_rank(1));
  fmt::print("one layer, bf16, {} threads, {}, median of 9 interleaved runs\n", context.threads(),
             name(tadapt::effective_instruction_set()));
  for (const tadapt::Shape3& shape : {tadapt::Shape3{1024, 128, 512}, {2048, 896, 4096}}) tadapt::run(context, shape);
}
