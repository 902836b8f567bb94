#include "runtime/eval/rounds.h"

#include <vector>

namespace tadapt {

void Rounds::step(double amount) {
  amount_ += amount;
  environment_.heartbeat(work_.phase);
  if (std::chrono::duration<double>(Clock::now() - last_).count() >= 1.0) meet(1.0);
}

void Rounds::finish() {
  while (meet(0.0)) environment_.heartbeat("waiting for other ranks: " + work_.phase);
}

bool Rounds::meet(double working) {
  const double mine[] = {working, environment_.stop_requested() ? 1.0 : 0.0, static_cast<double>(units_), amount_};
  const std::vector<double> all = environment_.world.all_gather(mine, "progress of " + work_.phase);
  double sums[std::size(mine)] = {};
  for (std::size_t i = 0; i < all.size(); ++i) sums[i % std::size(mine)] += all[i];
  if (sums[1] > 0.0) throw Stopped();
  progress_.update(work_.done + static_cast<std::int64_t>(sums[2]),
                   [&] { return work_.note(sums[3], progress_.seconds()); });
  last_ = Clock::now();
  return sums[0] > 0.0;
}

}  // namespace tadapt
