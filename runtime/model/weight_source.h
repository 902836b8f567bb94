// WeightSource: where the tensors of a model come from.
#pragma once

#include <functional>
#include <string>

#include "data/model_files.h"

namespace tadapt {

class WeightSource {
 public:
  using Use = std::function<void(const Tensor& numbers)>;

  virtual ~WeightSource() = default;
  /// Calls `use` with the tensor called `name`, of the shape that config.json makes it: float32, bfloat16 or float16
  /// numbers where the context computes, there until `use` returns.
  virtual void read(Context& context, const std::string& name, const Shape& shape, const Use& use) const = 0;
};

/// The tensors of a model directory. DataError naming file, tensor, expected and found shape or type.
class FileWeights : public WeightSource {
 public:
  explicit FileWeights(const ModelFiles& files) : files_(files) {}
  void read(Context& context, const std::string& name, const Shape& shape, const Use& use) const override;

 private:
  const ModelFiles& files_;
};

/// bfloat16 numbers uniform within ±√(3/n) for rows of n numbers, so that products keep the size of what they multiply;
/// one-dimensional tensors are the same within ±√3. A function of seed and name alone: for measuring without a model.
class RandomWeights : public WeightSource {
 public:
  explicit RandomWeights(std::uint64_t seed) : seed_(seed) {}
  void read(Context& context, const std::string& name, const Shape& shape, const Use& use) const override;

 private:
  std::uint64_t seed_;
};

}  // namespace tadapt
