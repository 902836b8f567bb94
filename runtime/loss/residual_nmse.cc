#include "runtime/loss/residual_nmse.h"

#include "kernels/core/memory.h"
#include "kernels/losses.h"
#include "runtime/adapter/grown.h"

namespace tadapt {
namespace {

constexpr double kEpsilon = 1e-8;

}  // namespace

void ResidualNmse::begin(Context& context, const TokenBatch& batch) {
  offsets_ = batch.offsets;
  grown(context, rows_, DType::kFloat64, 1, std::max<std::int64_t>(batch.tokens(), 1));
  for (Buffer* totals : {&squares_, &errors_})
    clear(context, grown(context, *totals, DType::kFloat64, states_, std::max(batch.sequences(), 1)));
}

std::size_t ResidualNmse::place(int state, int sequence) const {
  return static_cast<std::size_t>(state) * (offsets_.size() - 1) + static_cast<std::size_t>(sequence);
}

void ResidualNmse::total_by_sequence(Context& context, int state, const Buffer& totals) const {
  for (int sequence = 0; sequence + 1 < static_cast<int>(offsets_.size()); ++sequence) {
    const auto at = static_cast<std::int64_t>(place(state, sequence));
    const auto index = static_cast<std::size_t>(sequence);
    row_total(context, rows_.tensor().rows(offsets_[index], offsets_[index + 1]), totals.tensor().rows(at, at + 1));
  }
}

void ResidualNmse::observe_target(Context& context, int state, const Tensor& values) {
  width_ = values.size(1);
  row_square_norms(context, values, rows_.tensor().rows(0, values.size(0)));
  total_by_sequence(context, state, squares_);
}

void ResidualNmse::ready(Context& context, double scale) {
  scale_ = scale;
  target_squares_ = on_host<double>(context, squares_.tensor());
}

double ResidualNmse::mean(const std::vector<double>& sums, std::size_t place) const {
  const std::size_t sequence = place % (offsets_.size() - 1);
  const std::int64_t tokens = offsets_[sequence + 1] - offsets_[sequence];
  return sums[place] / static_cast<double>(std::max<std::int64_t>(1, tokens * width_));
}

void ResidualNmse::add_cotangent(Context& context, int state, const Tensor& predicted, const Tensor& target,
                                 const Tensor& cotangent) {
  for (int sequence = 0; sequence + 1 < static_cast<int>(offsets_.size()); ++sequence) {
    const std::int64_t begin = offsets_[static_cast<std::size_t>(sequence)];
    const std::int64_t end = offsets_[static_cast<std::size_t>(sequence) + 1];
    const double numbers = static_cast<double>(std::max<std::int64_t>(1, (end - begin) * width_));
    const double slope =
        scale_ * states_weight() * 2.0 / numbers / (mean(target_squares_, place(state, sequence)) + kEpsilon);
    add_squared_error(context, predicted.rows(begin, end), target.rows(begin, end), static_cast<float>(slope),
                      cotangent.rows(begin, end), rows_.tensor().rows(begin, end));
  }
  total_by_sequence(context, state, errors_);
}

std::vector<double> ResidualNmse::by_state(Context& context) const {
  const std::vector<double> errors = on_host<double>(context, errors_.tensor());
  std::vector<double> states(static_cast<std::size_t>(states_), 0.0);
  for (int state = 0; state < states_; ++state)
    for (int sequence = 0; sequence + 1 < static_cast<int>(offsets_.size()); ++sequence)
      states[static_cast<std::size_t>(state)] += states_weight() * mean(errors, place(state, sequence)) /
                                                 (mean(target_squares_, place(state, sequence)) + kEpsilon);
  return states;
}

}  // namespace tadapt
