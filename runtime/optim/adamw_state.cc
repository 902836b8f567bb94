#include "runtime/optim/adamw_state.h"

#include <algorithm>
#include <cmath>

#include "kernels/core/memory.h"
#include "kernels/optim.h"

namespace tadapt {

AdamWState::AdamWState(Device device, const ParameterStore& store, const std::vector<ParameterPart>& parts)
    : sharded_(!parts.empty()) {
  for (std::size_t i = 0; i < store.group_count(); ++i) {
    const std::int64_t elements = store.group(i).trainable_elements;
    const ParameterPart part = sharded_ ? parts.at(i) : ParameterPart{0, elements};
    require_shape(0 <= part.begin && part.begin <= part.end && part.end <= elements &&
                      part.begin % kParameterBlock == 0 && part.end % kParameterBlock == 0,
                  "elements {} to {} of the {} of {} are no part on block borders", part.begin, part.end, elements,
                  store.group(i).name);
    states_.push_back({.part = part,
                       .first = Buffer(device, DType::kFloat32, {part.elements()}),
                       .second = Buffer(device, DType::kFloat32, {part.elements()}),
                       .square_sums = Buffer(device, DType::kFloat64, {elements / kParameterBlock})});
  }
}

void AdamWState::measure(Context& context, const ParameterStore& store, std::size_t group) {
  const auto [begin, end] = part(group);
  if (begin == end) return;
  block_square_sums(context, store.gradient(group).rows(begin, end),
                    square_sums(group).rows(begin / kParameterBlock, end / kParameterBlock));
}

double clip_scale(const AdamWSettings& settings, double gradient_norm) {
  return settings.clip_norm > 0.0 ? std::min(1.0, settings.clip_norm / (gradient_norm + 1e-6)) : 1.0;
}

double AdamWState::square_norm(Context& context, std::size_t group) const {
  double square_norm = 0.0;
  for (const double sum : on_host<double>(context, square_sums(group))) square_norm += sum;
  return square_norm;
}

void AdamWState::update(Context& context, ParameterStore& store, std::size_t group, const AdamWSettings& settings,
                        const AdamWUpdate& update) {
  const auto [begin, end] = part(group);
  if (begin == end) return;
  adamw(context,
        {.master = store.master(group).rows(begin, end),
         .first_moment = first_moment(group),
         .second_moment = second_moment(group),
         .gradient = store.gradient(group).rows(begin, end),
         .working = Tensor()},
        {.learning_rate = update.learning_rate,
         .beta1 = settings.beta1,
         .beta2 = settings.beta2,
         .epsilon = settings.epsilon,
         .weight_decay = settings.weight_decay,
         .step = update.step + 1,
         .gradient_scale = update.gradient_scale});
}

}  // namespace tadapt
