#include "runtime/train/trainee.h"

#include <algorithm>

namespace tadapt {

void Trainee::count_activity(std::span<const float> active_counts, std::int64_t batch_tokens) {
  require_shape(active_counts.size() == tokens_since_active.size(), "{}: {} counts for {} features", name,
                active_counts.size(), tokens_since_active.size());
  for (std::size_t i = 0; i < active_counts.size(); ++i)
    tokens_since_active[i] = active_counts[i] > 0.0f ? 0 : tokens_since_active[i] + batch_tokens;
}

double Trainee::dead_share(std::int64_t tokens) const {
  const auto dead = std::ranges::count_if(tokens_since_active, [&](std::int64_t since) { return since >= tokens; });
  return static_cast<double>(dead) / static_cast<double>(std::max<std::size_t>(1, tokens_since_active.size()));
}

std::string trainee_name(int layer) { return fmt::format("layer-{:03d}", layer); }

}  // namespace tadapt
