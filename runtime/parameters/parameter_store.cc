#include "runtime/parameters/parameter_store.h"

#include "kernels/core/memory.h"

namespace tadapt {
namespace {

std::int64_t whole_blocks(std::int64_t elements) {
  return (elements + kParameterBlock - 1) / kParameterBlock * kParameterBlock;
}

std::vector<ParameterGroup::Span> place(const std::vector<ParameterSpec>& specs, std::int64_t& offset) {
  std::vector<ParameterGroup::Span> spans;
  for (const ParameterSpec& spec : specs) {
    spans.push_back({spec.name, spec.shape, offset});
    offset += whole_blocks(spec.shape.elements());
  }
  return spans;
}

ParameterTensors views(const std::vector<ParameterGroup::Span>& spans, const Tensor& memory) {
  ParameterTensors named;
  for (const ParameterGroup::Span& span : spans)
    named.add(span.name, memory.rows(span.offset, span.offset + span.shape.elements()).reshaped(span.shape));
  return named;
}

}  // namespace

const Tensor& ParameterTensors::operator[](std::string_view name) const {
  for (const Entry& entry : entries_)
    if (entry.name == name) return entry.tensor;
  throw ShapeError("no tensor named {}", name);
}

ParameterGroup lay_out(const ParameterGroupSpec& spec) {
  ParameterGroup group;
  group.name = spec.name;
  std::int64_t offset = 0;
  group.parameters = place(spec.parameters, offset);
  group.trainable_elements = offset;
  group.statistics = place(spec.statistics, offset);
  group.exchange_elements = offset;
  return group;
}

ParameterTensors parameter_views(const ParameterGroup& group, const Tensor& memory) {
  return views(group.parameters, memory);
}

ParameterTensors statistic_views(const ParameterGroup& group, const Tensor& memory) {
  return views(group.statistics, memory);
}

void clear_padding(Context& context, const ParameterGroup& group, const Tensor& memory) {
  for (const auto* spans : {&group.parameters, &group.statistics})
    for (const ParameterGroup::Span& span : *spans) {
      const std::int64_t end = span.offset + span.shape.elements();
      clear(context, memory.rows(end, whole_blocks(end)));
    }
}

ParameterStore::ParameterStore(Device device, const std::vector<ParameterGroupSpec>& groups) {
  std::int64_t masters = 0;
  std::int64_t gradients = 0;
  for (const ParameterGroupSpec& spec : groups) {
    Placed placed{lay_out(spec), masters, gradients};
    masters += placed.layout.trainable_elements;
    gradients += placed.layout.exchange_elements;
    groups_.push_back(std::move(placed));
  }
  masters_ = Buffer(device, DType::kFloat32, {masters});
  gradients_ = Buffer(device, DType::kFloat32, {gradients});
}

Tensor ParameterStore::master(std::size_t index) const {
  const Placed& placed = groups_.at(index);
  return masters_.tensor().rows(placed.master_offset, placed.master_offset + placed.layout.trainable_elements);
}

Tensor ParameterStore::gradient(std::size_t index) const {
  const Placed& placed = groups_.at(index);
  return gradients_.tensor().rows(placed.gradient_offset, placed.gradient_offset + placed.layout.exchange_elements);
}

}  // namespace tadapt
