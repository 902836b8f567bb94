#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include "kernels/core/launch.h"
#include "kernels/core/vectorise.h"
#include "kernels/sampling.h"

namespace tadapt::cpu {
namespace {

constexpr std::int32_t kNoToken = -1;

/// The largest logit's lowest id; kNoToken when there is a NaN or +infinity, or nothing above −infinity.
std::int32_t first_choice(std::span<const float> logits) {
  std::size_t best = 0;
  for (std::size_t v = 0; v < logits.size(); ++v) {
    if (std::isnan(logits[v])) return kNoToken;
    if (logits[v] > logits[best]) best = v;
  }
  return std::isfinite(logits[best]) ? static_cast<std::int32_t>(best) : kNoToken;
}

TADAPT_VECTORISED void weigh(const TokenWeight& weight, const float* logits, std::int64_t n, std::uint64_t* weights) {
  for (std::int64_t v = 0; v < n; ++v) weights[v] = weight(logits[v]);
}

Nucleus nucleus(std::span<const std::uint64_t> weights, std::uint64_t total, double top_p) {
  const std::uint64_t needed = needed_weight(total, top_p);
  // Tokens below this weigh less together than what may be left out: few have to be sorted.
  const std::uint64_t least = std::max<std::uint64_t>(1, (total - needed) / weights.size());
  std::vector<std::uint64_t> heavy;
  std::ranges::copy_if(weights, std::back_inserter(heavy), [&](std::uint64_t weight) { return weight >= least; });
  std::ranges::sort(heavy, std::greater());
  std::uint64_t heavier = 0, sum = 0;
  for (std::size_t i = 0;; ++i) {
    if (i > 0 && heavy[i] != heavy[i - 1]) heavier = sum;
    sum += heavy[i];
    if (sum >= needed) return nucleus_of(heavy[i], heavier, needed);
  }
}

std::int32_t draw_from(std::span<const std::uint64_t> weights, const Nucleus& nucleus, std::uint64_t bits) {
  std::uint64_t left = scaled_draw(bits, nucleus.total), ties = nucleus.ties;
  for (std::size_t v = 0;; ++v) {
    if (weights[v] < nucleus.weight || (weights[v] == nucleus.weight && ties == 0)) continue;
    if (weights[v] == nucleus.weight) --ties;
    if (left < weights[v]) return static_cast<std::int32_t>(v);
    left -= weights[v];
  }
}

}  // namespace

void sample_tokens(Context& context, const Tensor& logits, const Tensor& draws, const SamplingRule& rule,
                   const Tensor& tokens) {
  const auto vocabulary = static_cast<std::size_t>(logits.size(1));
  parallel_for(context, logits.size(0), [&](std::int64_t r, int thread) {
    const auto row = static_cast<std::size_t>(r);
    const std::span<const float> of_row = logits.span<float>().subspan(row * vocabulary, vocabulary);
    std::int32_t& token = tokens.span<std::int32_t>()[row];
    token = first_choice(of_row);
    if (token == kNoToken || rule.temperature == 0) return;
    const std::span<std::uint64_t> weights = context.scratch_of<std::uint64_t>(thread, vocabulary);
    const TokenWeight weight{of_row[static_cast<std::size_t>(token)], rule.temperature};
    weigh(weight, of_row.data(), logits.size(1), weights.data());
    const std::uint64_t total = std::accumulate(weights.begin(), weights.end(), std::uint64_t{0});
    const Nucleus kept =
        rule.top_p < 1 ? nucleus(weights, total, rule.top_p) : Nucleus{.weight = 0, .ties = vocabulary, .total = total};
    token = draw_from(weights, kept, static_cast<std::uint64_t>(draws.span<std::int64_t>()[row]));
  });
}

}  // namespace tadapt::cpu
