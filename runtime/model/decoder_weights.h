// The frozen numbers of a decoder as products use them, and their loading from a model directory.
#pragma once

#include <memory>
#include <vector>

#include "kernels/matmul.h"
#include "runtime/model/decoder_config.h"
#include "runtime/model/weight_source.h"

namespace tadapt {

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

/// Both read every tensor once and throw what the source throws. `compute`: as
/// pack_weights.
TrunkWeights load_trunk(Context& context, const WeightSource& source, const DecoderConfig& config, DType compute);
SharedMlps load_mlps(Context& context, const WeightSource& source, const DecoderConfig& config, DType compute);

}  // namespace tadapt
