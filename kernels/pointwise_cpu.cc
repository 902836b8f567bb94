#include "kernels/core/convert.h"
#include "kernels/core/launch.h"
#include "kernels/core/vectorise.h"
#include "kernels/pointwise.h"

namespace tadapt::cpu {
namespace {
TADAPT_VECTORISED void gate_each(const float* gate, const float* up, float* out, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) out[i] = SwiGlu{}(gate[i], up[i]);
}
/// Gradients may lie where inputs do: element i is read before it is written, which vectors keep to as well.
struct Gated {
  const float *gate, *up, *cotangent;
  float *gate_gradient, *up_gradient;
};
template <Linearisation kLinearisation>
TADAPT_INLINE void backward_of(const Gated& at, std::int64_t begin, std::int64_t end) {
#pragma omp simd
  for (std::int64_t i = begin; i < end; ++i) {
    const SwiGluGradient gradient = SwiGluBackward<kLinearisation>{}(at.gate[i], at.up[i], at.cotangent[i]);
    at.gate_gradient[i] = gradient.gate;
    at.up_gradient[i] = gradient.up;
  }
}
TADAPT_VECTORISED void backward_each(const Gated& at, Linearisation linearisation, std::int64_t begin,
                                     std::int64_t end) {
  if (linearisation == Linearisation::kExact) return backward_of<Linearisation::kExact>(at, begin, end);
  backward_of<Linearisation::kRelp>(at, begin, end);
}
TADAPT_VECTORISED void add_each(const float* x, float* y, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) y[i] += x[i];
}
TADAPT_VECTORISED void subtract_each(const float* x, float* y, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) y[i] -= x[i];
}
}  // namespace

void swiglu(Context& context, const Tensor& gate, const Tensor& up, const Tensor& out) {
  const float* g = gate.span<float>().data();
  const float* u = up.span<float>().data();
  float* o = out.span<float>().data();
  parallel_blocks(context, gate.elements(), kElementsPerBlock, [&](std::int64_t begin, std::int64_t end, int) {
    gate_each(g + begin, u + begin, o + begin, end - begin);
  });
}

void swiglu_backward(Context& context, const GatedPair& input, const Tensor& cotangent, Linearisation linearisation,
                     const GatedPair& gradient) {
  const Gated at{input.gate.span<float>().data(), input.up.span<float>().data(), cotangent.span<float>().data(),
                 gradient.gate.span<float>().data(), gradient.up.span<float>().data()};
  parallel_blocks(context, cotangent.elements(), kElementsPerBlock,
                  [&](std::int64_t begin, std::int64_t end, int) { backward_each(at, linearisation, begin, end); });
}

void add_to(Context& context, const Tensor& x, const Tensor& y) {
  const float* from = x.span<float>().data();
  float* to = y.span<float>().data();
  parallel_blocks(context, x.elements(), kElementsPerBlock,
                  [&](std::int64_t begin, std::int64_t end, int) { add_each(from + begin, to + begin, end - begin); });
}

void subtract_from(Context& context, const Tensor& x, const Tensor& y) {
  const float* from = x.span<float>().data();
  float* to = y.span<float>().data();
  parallel_blocks(context, x.elements(), kElementsPerBlock, [&](std::int64_t begin, std::int64_t end, int) {
    subtract_each(from + begin, to + begin, end - begin);
  });
}

void embed(Context& context, const Tensor& ids, const Tensor& table, const Tensor& out) {
  const std::span<const std::int32_t> rows = ids.span<std::int32_t>();
  for (std::size_t t = 0; t < rows.size(); ++t) {
    require_shape(0 <= rows[t] && rows[t] < table.size(0), "embed: id {} at position {} of a table of {} rows", rows[t],
                  t, table.size(0));
  }
  parallel_blocks(context, ids.size(0), rows_per_block(table.size(1)), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t t = begin; t < end; ++t) {
      const std::int64_t id = rows[static_cast<std::size_t>(t)];
      convert_elements(table.rows(id, id + 1), out.rows(t, t + 1));
    }
  });
}

void convert(Context& context, const Tensor& from, const Tensor& to) {
  const Tensor flat_from = from.reshaped({from.elements()}), flat_to = to.reshaped({to.elements()});
  parallel_blocks(context, from.elements(), kElementsPerBlock, [&](std::int64_t begin, std::int64_t end, int) {
    convert_elements(flat_from.rows(begin, end), flat_to.rows(begin, end));
  });
}

}  // namespace tadapt::cpu
