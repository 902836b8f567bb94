#include "runtime/optim/adamw_state.h"

#include <algorithm>
#include <cmath>

#include "kernels/optim.h"

namespace tadapt {

AdamWState::AdamWState(Device device, const ParameterStore& store) {
  std::int64_t largest = 0;
  for (std::size_t i = 0; i < store.group_count(); ++i) {
    const std::int64_t elements = store.group(i).trainable_elements;
    moments_.push_back({Buffer(device, DType::kFloat32, {elements}), Buffer(device, DType::kFloat32, {elements})});
    largest = std::max(largest, elements);
  }
  block_sums_ = Buffer(device, DType::kFloat64, {largest / kParameterBlock});
}

UpdateReport AdamWState::update(Context& context, ParameterStore& store, std::size_t group,
                                const AdamWSettings& settings, double learning_rate, std::int64_t step) {
  const std::int64_t elements = store.group(group).trainable_elements;
  const Tensor gradient = store.gradient(group).rows(0, elements);
  const Tensor sums = block_sums_.tensor().rows(0, elements / kParameterBlock);
  block_square_sums(context, gradient, sums);
  double square_norm = 0.0;
  for (const double sum : sums.span<double>()) square_norm += sum;
  UpdateReport report{std::sqrt(square_norm), std::isfinite(square_norm)};
  if (!report.finite) return report;

  const double clip =
      settings.clip_norm > 0.0 ? std::min(1.0, settings.clip_norm / (report.gradient_norm + 1e-6)) : 1.0;
  const AdamWStep adamw_step{.learning_rate = learning_rate,
                             .beta1 = settings.beta1,
                             .beta2 = settings.beta2,
                             .epsilon = settings.epsilon,
                             .weight_decay = settings.weight_decay,
                             .step = step + 1,
                             .gradient_scale = clip};
  adamw(context,
        {.master = store.master(group),
         .first_moment = first_moment(group),
         .second_moment = second_moment(group),
         .gradient = gradient,
         .working = Tensor()},
        adamw_step);
  return report;
}

}  // namespace tadapt
