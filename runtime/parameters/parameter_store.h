// ParameterStore: the trainable numbers of this rank in one flat buffer, and their gradients in another, by name.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/context.h"

namespace tadapt {

/// Sums over parameters use double partials over blocks of this many elements; every span begins on a block border, so
/// norms and exchanges are cut alike on every process grid.
inline constexpr std::int64_t kParameterBlock = 4096;

/// A tensor asked for: its name within its group and its shape.
struct ParameterSpec {
  std::string name;
  Shape shape;
};

/// What one trainee asks for. `statistics` are counters that travel with the gradients through the exchange (summed
/// over all tokens of the batch) but are not trained: they have no master, no moments and no part in the norm.
struct ParameterGroupSpec {
  std::string name;
  std::vector<ParameterSpec> parameters;
  std::vector<ParameterSpec> statistics;
};

/// Named tensors over somebody's flat memory, in the order of the specs.
class ParameterTensors {
 public:
  void add(std::string name, Tensor tensor) { entries_.push_back({std::move(name), tensor}); }
  /// ShapeError when there is no tensor of this name.
  const Tensor& operator[](std::string_view name) const;

  struct Entry {
    std::string name;
    Tensor tensor;
  };
  const std::vector<Entry>& entries() const { return entries_; }

 private:
  std::vector<Entry> entries_;
};

/// Where one group's tensors lie; in elements from the start of its part of the flat buffers.
struct ParameterGroup {
  struct Span {
    std::string name;
    Shape shape;
    std::int64_t offset = 0;
  };
  std::string name;
  std::vector<Span> parameters;
  std::vector<Span> statistics;
  std::int64_t trainable_elements = 0;  ///< of the parameters, each padded to whole blocks
  std::int64_t exchange_elements = 0;   ///< parameters and statistics, padded
};

/// Trainable elements [begin, end) of a group, on block borders: what one rank has of something.
struct ParameterPart {
  std::int64_t begin = 0, end = 0;
  std::int64_t elements() const { return end - begin; }
};

/// Lays spans out block by block; shared by the store and by whoever needs scratch of the same layout.
ParameterGroup lay_out(const ParameterGroupSpec& spec);
/// The named views of `memory` (exchange_elements or trainable_elements floats laid out as `group`).
ParameterTensors parameter_views(const ParameterGroup& group, const Tensor& memory);
ParameterTensors statistic_views(const ParameterGroup& group, const Tensor& memory);

/// Zeros where `memory` (exchange_elements floats laid out as `group`) belongs to no tensor: it is exchanged and summed
/// with the rest.
void clear_padding(Context& context, const ParameterGroup& group, const Tensor& memory);

/// Owns fp32 masters and gradients of all groups, zero at first. Padding between spans stays zero for ever.
class ParameterStore {
 public:
  ParameterStore(Device device, const std::vector<ParameterGroupSpec>& groups);

  std::size_t group_count() const { return groups_.size(); }
  const ParameterGroup& group(std::size_t index) const { return groups_.at(index).layout; }

  /// [trainable_elements] fp32.
  Tensor master(std::size_t index) const;
  /// [exchange_elements] fp32: gradients, then statistics.
  Tensor gradient(std::size_t index) const;

  ParameterTensors master_views(std::size_t index) const { return parameter_views(group(index), master(index)); }

 private:
  struct Placed {
    ParameterGroup layout;
    std::int64_t master_offset = 0;
    std::int64_t gradient_offset = 0;
  };
  std::vector<Placed> groups_;
  Buffer masters_;
  Buffer gradients_;
};

}  // namespace tadapt
