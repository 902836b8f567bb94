// The frozen numbers of a decoder as products use them, and their loading from a model directory.
#pragma once

#include <limits>
#include <memory>
#include <vector>

#include "kernels/matmul.h"
#include "runtime/model/decoder_config.h"
#include "runtime/model/weight_source.h"

namespace tadapt {

/// Layers [begin, end) of a model.
struct LayerSpan {
  int begin = 0;
  int end = std::numeric_limits<int>::max();
  int count() const { return end - begin; }
  bool contains(int layer) const { return begin <= layer && layer < end; }
};

/// How a decoder computes: operands of its products, and whether its backward will run too.
struct DecoderCompute {
  // NOLINTNEXTLINE(google-explicit-constructor): a type alone says enough
  DecoderCompute(DType products, Directions asked = Directions::kForward, LayerSpan wanted = {})
      : dtype(products), directions(asked), layers(wanted) {}
  DType dtype;
  Directions directions;
  LayerSpan layers;  ///< that it has; embeddings only with the first, norm and head only with the last of the model
};

struct MlpWeights {
  PackedWeights gate, up, down;
};

struct AttentionWeights {
  Buffer norm;
  PackedWeights query, key, value, out;
  Buffer query_bias, key_bias, value_bias;  ///< empty when the family has none
};

struct LayerWeights {
  AttentionWeights attention;
  Buffer mlp_norm;
};

/// All but the MLPs of the layers. Norms and biases are float32; a tied head is packed from the embedding table.
struct TrunkWeights {
  Buffer embeddings;  ///< [V, D] in the file's type: rows are looked up, never multiplied
  std::vector<LayerWeights> layers;
  Buffer final_norm;
  PackedWeights head;
};

using SharedMlps = std::vector<std::shared_ptr<const MlpWeights>>;  ///< one a layer

/// Both read every tensor once and throw what the source throws.
TrunkWeights load_trunk(Context& context, const WeightSource& source, const DecoderConfig& config,
                        const DecoderCompute& compute);
SharedMlps load_mlps(Context& context, const WeightSource& source, const DecoderConfig& config,
                     const DecoderCompute& compute);

}  // namespace tadapt
