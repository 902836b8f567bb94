// Our tiled products against oneDNN's whole products on all threads, interleaved; and the rate of a product in cache.
#include "kernels/matmul.h"

#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>

#include "kernels/core/random.h"
#include "kernels/instruction_set.h"
#include "kernels/onednn.h"
#include "runtime/plan/step_timer.h"

namespace tadapt {
namespace {
using dnnl::memory;

struct Problem {
  std::int64_t t, n, k;
};

Buffer operand(DType dtype, Shape shape, std::uint64_t sample) {
  Buffer buffer(Device::kCpu, dtype, shape);
  const RandomStream stream(1, RandomPurpose::kTest, 0, sample);
  for (std::int64_t i = 0; i < shape.elements(); ++i) {
    const auto at = static_cast<std::size_t>(i);
    const float value = stream.uniform(static_cast<std::uint32_t>(i)) - 0.5f;
    if (dtype == DType::kFloat32) static_cast<float*>(buffer.data())[at] = value;
    if (dtype == DType::kBFloat16) static_cast<bfloat16*>(buffer.data())[at] = bfloat16(value);
  }
  return buffer;
}

/// y[rows, columns] = a · b by one oneDNN primitive over the whole of it, weights in the library's own layout.
class WholeProduct {
 public:
  WholeProduct(const memory::desc& a, const memory::desc& b, const memory::desc& y, void* a_data, void* b_data,
               void* y_data)
      : engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) {
    const dnnl::matmul::primitive_desc description(
        {a, memory::desc(b.dims(), b.data_type(), memory::format_tag::any), y}, engine_);
    product_ = dnnl::matmul(description);
    packed_ = memory(description.weights_desc(), engine_);
    memory plain(b, engine_, b_data);
    dnnl::reorder(plain, packed_).execute(stream_, plain, packed_);
    a_ = memory(a, engine_, a_data);
    y_ = memory(y, engine_, y_data);
  }
  void run() {
    product_.execute(stream_, {{DNNL_ARG_SRC, a_}, {DNNL_ARG_WEIGHTS, packed_}, {DNNL_ARG_DST, y_}});
    stream_.wait();
  }

 private:
  dnnl::engine engine_;
  dnnl::stream stream_;
  dnnl::matmul product_;
  memory packed_, a_, y_;
};

memory::desc matrix(std::int64_t rows, std::int64_t columns, memory::data_type type, memory::dims strides) {
  return memory::desc({rows, columns}, type, strides);
}

struct Cost {
  double wall, cpu;  ///< seconds; cpu of all threads together
};

struct Contestant {
  const char* name;
  std::function<void()> run;
  std::vector<double> wall = {}, cpu = {};
  Cost cost() const { return {median(wall), median(cpu)}; }
};

double seconds_of(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/// Runs them in turns, at least nine each, and prints medians; the first is what the others are compared with. Where
/// other programs use the machine too, the ratio of CPU times tells more than that of wall times.
void race(double flop, std::vector<Contestant> contestants) {
  const int turns = flop > 1e11 ? 9 : 31;
  for (int turn = -1; turn < turns; ++turn) {
    for (Contestant& contestant : contestants) {
      const double wall = seconds_of(CLOCK_MONOTONIC), cpu = seconds_of(CLOCK_PROCESS_CPUTIME_ID);
      contestant.run();
      if (turn < 0) continue;
      contestant.wall.push_back(seconds_of(CLOCK_MONOTONIC) - wall);
      contestant.cpu.push_back(seconds_of(CLOCK_PROCESS_CPUTIME_ID) - cpu);
    }
  }
  const Cost first = contestants.front().cost();
  for (const Contestant& contestant : contestants) {
    const Cost cost = contestant.cost();
    std::printf("  %-34s %8.1f GFLOP/s, %7.1f per core   ratio %.3f, of CPU times %.3f\n", contestant.name,
                flop / cost.wall * 1e-9, flop / cost.cpu * 1e-9, first.wall / cost.wall, first.cpu / cost.cpu);
  }
}

double flop_of(const Problem& p) { return 2.0 * static_cast<double>(p.t) * static_cast<double>(p.n * p.k); }

void bench_forward(Context& context, const Problem& p, DType compute) {
  const Buffer x = operand(compute, {p.t, p.k}, 1), single = operand(DType::kFloat32, {p.t, p.k}, 1);
  const Buffer w = operand(compute, {p.n, p.k}, 2), y(Device::kCpu, DType::kFloat32, {p.t, p.n});
  const PackedWeights packed = pack_weights(context, w.tensor(), Layout::kOutputInput, compute);
  const memory::data_type type = cpu::onednn_type(compute);
  WholeProduct whole(matrix(p.t, p.k, type, {p.k, 1}), matrix(p.k, p.n, type, {1, p.k}),
                     matrix(p.t, p.n, memory::data_type::f32, {p.n, 1}), x.data(), w.data(), y.data());
  std::printf("y[%ld,%ld] = x[%ld,%ld] W^T, %s\n", p.t, p.n, p.t, p.k, name(compute));
  const auto tiled = [&](const Buffer& rows) {
    return [&] { matmul(context, rows.tensor(), packed, {}, Epilogue::kNone, y.tensor()); };
  };
  std::vector<Contestant> contestants = {{"oneDNN, whole", [&] { whole.run(); }}, {"tiled", tiled(x)}};
  if (compute == DType::kBFloat16) contestants.push_back({"tiled, x float32 rounded on the way", tiled(single)});
  race(flop_of(p), std::move(contestants));
}

void bench_gradient(Context& context, const Problem& p, DType compute) {
  const Buffer left = operand(compute, {p.t, p.n}, 1), right = operand(compute, {p.t, p.k}, 2);
  const Buffer gradient(Device::kCpu, DType::kFloat32, {p.n, p.k});
  const memory::data_type type = cpu::onednn_type(compute);
  WholeProduct whole(matrix(p.n, p.t, type, {1, p.n}), matrix(p.t, p.k, type, {p.k, 1}),
                     matrix(p.n, p.k, memory::data_type::f32, {p.k, 1}), left.data(), right.data(), gradient.data());
  std::printf("gradient[%ld,%ld] over %ld tokens, %s (packing counted for ours only)\n", p.n, p.k, p.t, name(compute));
  race(flop_of(p),
       {{"oneDNN, whole", [&] { whole.run(); }},
        {"tiled", [&] { weight_gradient(context, left.tensor(), right.tensor(), compute, gradient.tensor()); }}});
}

/// The rate of oneDNN's product where everything stays in cache.
void print_ceiling(DType compute) {
  const Problem p{1024, 1024, 1024};
  const Buffer x = operand(compute, {p.t, p.k}, 1), w = operand(compute, {p.n, p.k}, 2);
  const Buffer y(Device::kCpu, DType::kFloat32, {p.t, p.n});
  const memory::data_type type = cpu::onednn_type(compute);
  WholeProduct whole(matrix(p.t, p.k, type, {p.k, 1}), matrix(p.k, p.n, type, {1, p.k}),
                     matrix(p.t, p.n, memory::data_type::f32, {p.n, 1}), x.data(), w.data(), y.data());
  std::printf("ceiling: 1024 x 1024 x 1024 in cache, %s\n", name(compute));
  race(flop_of(p), {{"oneDNN, whole", [&] { whole.run(); }}});
}
}  // namespace
}  // namespace tadapt

int main(int argc, char** argv) {
  using namespace tadapt;
  std::vector<Problem> forward = {{4096, 8192, 3584}, {4096, 3584, 8192}, {1024, 1536, 1536}, {1024, 512, 128}};
  std::vector<Problem> gradient = {{512, 8192, 3584}, {1024, 1536, 1536}, {128, 512, 128}};
  if (argc == 4) forward = gradient = {{std::atoll(argv[1]), std::atoll(argv[2]), std::atoll(argv[3])}};
  if (argc != 1 && argc != 4) {
    std::fprintf(stderr, "bench_matmul [TOKENS OUTPUTS INPUTS]\n");
    return 2;
  }
  const int threads = threads_per_rank(1);
  Context context = Context::cpu(threads);
  omp_set_num_threads(threads);
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  std::printf("instruction set %s, %d threads\n", name(effective_instruction_set()).c_str(), threads);
  for (const DType compute : {DType::kFloat32, DType::kBFloat16}) {
    if (compute == DType::kBFloat16 && !cpu::has_bfloat16_products()) continue;
    print_ceiling(compute);
    for (const Problem& p : forward) bench_forward(context, p, compute);
    for (const Problem& p : gradient) bench_gradient(context, p, compute);
  }
  return 0;
}
