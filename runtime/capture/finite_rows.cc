#include "runtime/capture/finite_rows.h"

#include <algorithm>
#include <cmath>

#include "kernels/core/memory.h"
#include "kernels/losses.h"
#include "runtime/adapter/grown.h"

namespace tadapt {

void FiniteRows::begin(const Context& context, std::int64_t rows) {
  ends_.clear();
  grown(context, memory_, DType::kFloat64, 1, rows);
}

void FiniteRows::add(Context& context, const Tensor& values) {
  const std::int64_t begin = ends_.empty() ? 0 : ends_.back(), end = begin + values.size(0);
  row_square_norms(context, values, memory_.tensor().rows(begin, end));
  ends_.push_back(end);
}

std::optional<FiniteRows::Place> FiniteRows::first_bad(Context& context) const {
  if (ends_.empty()) return std::nullopt;
  const std::vector<double> norms = on_host<double>(context, memory_.tensor().rows(0, ends_.back()));
  const auto bad = std::ranges::find_if_not(norms, [](double norm) { return std::isfinite(norm); });
  if (bad == norms.end()) return std::nullopt;
  const std::int64_t row = bad - norms.begin();
  const auto set = static_cast<std::size_t>(std::ranges::upper_bound(ends_, row) - ends_.begin());
  return Place{.set = set, .row = set == 0 ? row : row - ends_[set - 1]};
}

}  // namespace tadapt
