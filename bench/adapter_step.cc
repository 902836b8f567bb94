// One leaf's forward, loss and gradients of an adapter over its density: dense, sparse and by the committed choice.
//   bench_adapter_step [bf16|fp32] [THREADS] [TOKENS] [D] [F]
// Medians of interleaved runs; the spread is the dense step's against itself.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "kernels/instruction_set.h"
#include "runtime/adapter/break_even.h"
#include "runtime/plan/step_timer.h"

namespace tadapt {
namespace {

constexpr int kRuns = 9;
constexpr double kFullDictionary = 8192;  // the densities below are active features of so many

void run(Context& context, const StepSetting& setting) {
  const auto features = static_cast<double>(setting.shape.features);
  const double chosen = break_even(Device::kCpu, setting.shape, setting.compute);
  StepTimer dense(context, setting, 0.0), again(context, setting, 0.0), sparse(context, setting, 2.0 * features),
      automatic(context, setting, chosen);
  std::printf("D %lld, F %lld, T %lld, %s, %s, %d threads; sparse below %.0f active features per token\n",
              static_cast<long long>(setting.shape.model_width), static_cast<long long>(setting.shape.features),
              static_cast<long long>(setting.tokens), name(setting.compute), name(effective_instruction_set()).c_str(),
              context.threads(), chosen);
  std::printf("%9s %10s %10s %10s %8s %8s %8s\n", "L0", "dense ms", "sparse ms", "auto ms", "speed-up", "auto/min",
              "spread");
  const std::vector<StepTimer*> timers = {&dense, &sparse, &automatic, &again};
  for (const double l0 : {0.0, 0.1, 1.4, 10.0, 64.0, 200.0, 400.0, 800.0, 1600.0, 4096.0}) {
    for (StepTimer* timer : timers) {
      timer->set_l0(l0 / kFullDictionary * features);
      timer->seconds();
    }
    std::vector<std::vector<double>> seconds(timers.size());
    for (int i = 0; i < kRuns; ++i)
      for (std::size_t s = 0; s < timers.size(); ++s) seconds[s].push_back(timers[s]->seconds());
    const double d = median(seconds[0]), p = median(seconds[1]), a = median(seconds[2]), e = median(seconds[3]);
    std::printf("%9.2f %10.1f %10.1f %10.1f %8.2f %8.3f %8.3f\n", dense.l0(), 1e3 * d, 1e3 * p, 1e3 * a, d / p,
                a / std::min(d, p), std::max(d, e) / std::min(d, e));
    std::fflush(stdout);
  }
}

}  // namespace
}  // namespace tadapt

int main(int argc, char** argv) {
  const auto word = [&](int i, long long otherwise) { return argc > i ? std::atoll(argv[i]) : otherwise; };
  const tadapt::DType compute =
      argc > 1 && std::string(argv[1]) == "fp32" ? tadapt::DType::kFloat32 : tadapt::DType::kBFloat16;
  tadapt::Context context = tadapt::Context::cpu(argc > 2 ? static_cast<int>(word(2, 1)) : tadapt::threads_per_rank(1));
  tadapt::run(context, {.shape = {word(4, 3584), word(5, 8192)}, .tokens = word(3, 1024), .compute = compute});
  return 0;
}
