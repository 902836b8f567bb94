// A table of ops run on the CPU and on a GPU: operands made anew for each, all compared afterwards.
#pragma once

#include <functional>
#include <map>

#include "kernels/core/memory.h"
#include "tests/kernels/testing.h"

namespace tadapt::testing {

/// Host tensors as seen by an op: on the CPU themselves; on a GPU copies, which collect() brings back.
class Mirror {
 public:
  explicit Mirror(Context& context) : context_(context) {}
  Tensor operator()(const Tensor& host) {
    if (context_.device() == Device::kCpu || host.empty()) return host;
    auto [at, is_new] = copies_.try_emplace(host.data());
    if (is_new) {
      at->second = {host, Buffer(context_.device(), host.dtype(), host.shape())};
      copy(context_, host, at->second.device.tensor());
    }
    return at->second.device.tensor().reshaped(host.shape());
  }
  Tensor operator()(const Buffer& buffer) { return (*this)(buffer.tensor()); }
  void collect() {
    for (auto& [data, one] : copies_) copy(context_, one.device.tensor(), one.host);
    synchronize(context_);
  }

 private:
  struct Copy {
    Tensor host;
    Buffer device;
  };
  Context& context_;
  std::map<void*, Copy> copies_;
};

/// What one op is run on: buffers made anew for each device, all of which are compared afterwards.
using Operands = std::vector<Buffer>;

struct OpCase {
  std::string name;
  std::function<Operands()> make;
  std::function<void(Context&, Mirror&, const Operands&)> run;
  double tolerance = 0.0;  ///< of each number, relative to the largest of its buffer; 0: the same bits
};
inline std::ostream& operator<<(std::ostream& out, const OpCase& one) { return out << one.name; }

inline Buffer ints(std::vector<std::int32_t> values) {
  Buffer buffer(Device::kCpu, DType::kInt32, {static_cast<std::int64_t>(values.size())});
  std::ranges::copy(values, buffer.span<std::int32_t>().begin());
  return buffer;
}
inline Buffer room(DType dtype, Shape shape) { return Buffer(Device::kCpu, dtype, shape); }
template <class... B>
Operands operands(B&&... buffers) {
  Operands all;
  (all.push_back(std::forward<B>(buffers)), ...);
  return all;
}
inline Buffer activations(std::int64_t t, std::int64_t f, float density) {
  Buffer a = uniform(DType::kFloat32, {t, f}, 1, density - 1.0f, density);
  for (float& number : a.span<float>()) number = std::max(number, 0.0f);
  return a;
}

inline std::string shape_name(std::int64_t a, std::int64_t b) { return fmt::format("_{}x{}", a, b); }

/// Sums in fp32 of up to a few thousand terms of one size.
inline constexpr double kSums = 2e-6;

inline void expect_close(const Tensor& cpu, const Tensor& gpu, double tolerance, std::size_t which) {
  if (tolerance == 0.0 || cpu.dtype() == DType::kInt32) {
    EXPECT_TRUE(same_bits(cpu, gpu)) << "operand " << which;
    return;
  }
  double largest = 0;
  for (std::int64_t i = 0; i < cpu.elements(); ++i) largest = std::max(largest, std::abs(value(cpu, i)));
  for (std::int64_t i = 0; i < cpu.elements(); ++i)
    ASSERT_NEAR(value(cpu, i), value(gpu, i), tolerance * largest) << "operand " << which << " element " << i;
}

/// Runs the case on the CPU and twice on the GPU, which must agree, the latter two in every bit.
inline void expect_gpu_equals_cpu(const OpCase& test) {
  if (!has_gpu()) GTEST_SKIP() << "no GPU here";
  Context cpu = Context::cpu(2), gpu = Context::cuda(0);
  const auto run = [&](Context& context) {
    Operands all = test.make();
    Mirror mirror(context);
    test.run(context, mirror, all);
    if (context.device() != Device::kCpu) mirror.collect();
    return all;
  };
  const Operands expected = run(cpu), found = run(gpu), again = run(gpu);
  for (std::size_t i = 0; i < expected.size(); ++i) {
    expect_close(expected[i].tensor(), found[i].tensor(), test.tolerance, i);
    EXPECT_TRUE(same_bits(found[i].tensor(), again[i].tensor())) << "another run differs in operand " << i;
  }
}

}  // namespace tadapt::testing
