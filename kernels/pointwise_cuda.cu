#include <climits>

#include "kernels/core/elementwise.cuh"
#include "kernels/core/float16.h"
#include "kernels/core/memory.h"
#include "kernels/pointwise.h"

namespace tadapt::cuda {
namespace {

/// 12 bytes an element; 35 registers on sm_90, 6 blocks of 256 threads an SM. All others here but the next have up to
/// 32: 8 blocks.
struct Gate {
  const float *gate, *up;
  float* out;
  template <int kWidth>
  __device__ void run(std::int64_t i) const {
    Pack<float, kWidth> g = load_pack<kWidth>(gate, i);
    const Pack<float, kWidth> u = load_pack<kWidth>(up, i);
    for (int k = 0; k < kWidth; ++k) g.values[k] = SwiGlu{}(g.values[k], u.values[k]);
    store_pack(out, i, g);
  }
};

/// 20 bytes an element; up to 48 registers on sm_90, 5 blocks of 256 threads an SM.
template <Linearisation kLinearisation>
struct GateBackward {
  const float *gate, *up, *cotangent;
  float *gate_gradient, *up_gradient;
  template <int kWidth>
  __device__ void run(std::int64_t i) const {
    Pack<float, kWidth> g = load_pack<kWidth>(gate, i), u = load_pack<kWidth>(up, i);
    const Pack<float, kWidth> c = load_pack<kWidth>(cotangent, i);
    for (int k = 0; k < kWidth; ++k) {
      const SwiGluGradient gradient = SwiGluBackward<kLinearisation>{}(g.values[k], u.values[k], c.values[k]);
      g.values[k] = gradient.gate;
      u.values[k] = gradient.up;
    }
    store_pack(gate_gradient, i, g);
    store_pack(up_gradient, i, u);
  }
};

/// 12 bytes an element.
struct Subtract {
  const float* x;
  float* y;
  template <int kWidth>
  __device__ void run(std::int64_t i) const {
    Pack<float, kWidth> difference = load_pack<kWidth>(y, i);
    const Pack<float, kWidth> less = load_pack<kWidth>(x, i);
    for (int k = 0; k < kWidth; ++k) difference.values[k] -= less.values[k];
    store_pack(y, i, difference);
  }
};

/// 12 bytes an element.
struct Add {
  const float* x;
  float* y;
  template <int kWidth>
  __device__ void run(std::int64_t i) const {
    Pack<float, kWidth> sum = load_pack<kWidth>(y, i);
    const Pack<float, kWidth> more = load_pack<kWidth>(x, i);
    for (int k = 0; k < kWidth; ++k) sum.values[k] += more.values[k];
    store_pack(y, i, sum);
  }
};

/// Reads and writes each number once.
template <class From, class To>
struct Convert {
  const From* from;
  To* to;
  template <int kWidth>
  __device__ void run(std::int64_t i) const {
    const Pack<From, kWidth> source = load_pack<kWidth>(from, i);
    Pack<To, kWidth> target;
    for (int k = 0; k < kWidth; ++k) target.values[k] = static_cast<To>(static_cast<float>(source.values[k]));
    store_pack(to, i, target);
  }
};

/// The first position whose id is outside the table; 4 bytes a token.
__global__ void check_ids(const std::int32_t* ids, std::int64_t tokens, std::int64_t rows, int* first_bad) {
  const std::int64_t t = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (t < tokens && (ids[t] < 0 || ids[t] >= rows)) atomicMin(first_bad, static_cast<int>(t));
}

/// A block a token; reads a row of T and writes one of fp32.
template <class T>
__global__ void look_up(const std::int32_t* ids, const T* table, std::int64_t width, float* out) {
  const std::int64_t t = blockIdx.x;
  const T* row = table + ids[t] * width;
  for (std::int64_t d = threadIdx.x; d < width; d += blockDim.x) out[t * width + d] = static_cast<float>(row[d]);
}

template <class From, class To>
void convert_as(Context& context, const Tensor& from, const Tensor& to) {
  const From* source = numbers<const From>(from);
  To* target = numbers<To>(to);
  elementwise<4>(context, "convert", from.elements(), aligned_to_16(source, target), Convert<From, To>{source, target});
}

template <class From>
void convert_from(Context& context, const Tensor& from, const Tensor& to) {
  if (to.dtype() == DType::kFloat32) return convert_as<From, float>(context, from, to);
  if (to.dtype() == DType::kBFloat16) return convert_as<From, bfloat16>(context, from, to);
  convert_as<From, float16>(context, from, to);
}

}  // namespace

void swiglu(Context& context, const Tensor& gate, const Tensor& up, const Tensor& out) {
  const Gate body{numbers<const float>(gate), numbers<const float>(up), numbers<float>(out)};
  elementwise<4>(context, "swiglu", gate.elements(), aligned_to_16(body.gate, body.up, body.out), body);
}

void swiglu_backward(Context& context, const GatedPair& input, const Tensor& cotangent, Linearisation linearisation,
                     const GatedPair& gradient) {
  const auto run = [&](auto body) {
    elementwise<4>(context, "swiglu_backward", cotangent.elements(),
                   aligned_to_16(body.gate, body.up, body.cotangent, body.gate_gradient, body.up_gradient), body);
  };
  const auto *gate = numbers<const float>(input.gate), *up = numbers<const float>(input.up),
             *from = numbers<const float>(cotangent);
  auto *to_gate = numbers<float>(gradient.gate), *to_up = numbers<float>(gradient.up);
  if (linearisation == Linearisation::kExact)
    return run(GateBackward<Linearisation::kExact>{gate, up, from, to_gate, to_up});
  run(GateBackward<Linearisation::kRelp>{gate, up, from, to_gate, to_up});
}

void add_to(Context& context, const Tensor& x, const Tensor& y) {
  const Add body{numbers<const float>(x), numbers<float>(y)};
  elementwise<4>(context, "add_to", x.elements(), aligned_to_16(body.x, body.y), body);
}

void subtract_from(Context& context, const Tensor& x, const Tensor& y) {
  const Subtract body{numbers<const float>(x), numbers<float>(y)};
  elementwise<4>(context, "subtract_from", x.elements(), aligned_to_16(body.x, body.y), body);
}

void embed(Context& context, const Tensor& ids, const Tensor& table, const Tensor& out) {
  constexpr int kThreads = 256;
  const std::int64_t tokens = ids.size(0);
  const std::int32_t* id = numbers<const std::int32_t>(ids);
  require_shape(tokens < INT_MAX, "embed: {} ids in one call", tokens);
  std::int32_t first_bad = INT_MAX;
  const Tensor host = Tensor::of(std::span(&first_bad, 1), {1});
  const Tensor flag(context.scratch(0, sizeof first_bad), DType::kInt32, {1}, Device::kCuda);
  cuda::copy(context, host, flag);
  launch(context, "embed", {blocks_for(tokens, kThreads), kThreads}, check_ids, id, tokens, table.size(0),
         numbers<int>(flag));
  cuda::copy(context, flag, host);
  cuda::synchronize(context);
  if (first_bad != INT_MAX) {
    std::int32_t wrong = 0;
    cuda::copy(context, ids.rows(first_bad, first_bad + 1), Tensor::of(std::span(&wrong, 1), {1}));
    cuda::synchronize(context);
    throw ShapeError("embed: id {} at position {} of a table of {} rows", wrong, first_bad, table.size(0));
  }
  const Grid grid{tokens, kThreads};
  if (table.dtype() == DType::kFloat32)
    launch(context, "embed", grid, look_up<float>, id, numbers<const float>(table), table.size(1), numbers<float>(out));
  else if (table.dtype() == DType::kBFloat16)
    launch(context, "embed", grid, look_up<bfloat16>, id, numbers<const bfloat16>(table), table.size(1),
           numbers<float>(out));
  else
    launch(context, "embed", grid, look_up<float16>, id, numbers<const float16>(table), table.size(1),
           numbers<float>(out));
}

void convert(Context& context, const Tensor& from, const Tensor& to) {
  if (from.dtype() == DType::kFloat32) return convert_from<float>(context, from, to);
  if (from.dtype() == DType::kBFloat16) return convert_from<bfloat16>(context, from, to);
  convert_from<float16>(context, from, to);
}

}  // namespace tadapt::cuda
