// Adapters as the packages of the field keep transcoders: circuit-tracer, SAELens, sparsify.
//
// All three hold T(x) = W_dec relu(W_enc x + b_enc) + b_dec of what an MLP reads, and their own tools take it for what
// the MLP writes. Ours is added to the base's MLP: each file says so.
#pragma once

#include <filesystem>
#include <string>

#include "data/file.h"
#include "runtime/bundle/adapter_bundle.h"

namespace tadapt {

struct PackageExport {
  std::string model_name;  ///< what the package calls the model
  std::int64_t k = 0;      ///< sparsify: most features active on a token; 0: the dictionary size
};

/// OUT/config.yaml and OUT/layer_{ℓ}.safetensors {W_enc [F,D], W_dec [F,D], b_enc, b_dec}, as circuit-tracer's
/// load_transcoder_set reads them; zeros for layers below the last that have no adapter, since it wants all.
/// ConfigError unless all adapters are transcoders of one dictionary size. Returns bytes of tensors written.
std::uint64_t export_circuit_tracer(FileSystem& files, const AdapterBundle& bundle, const PackageExport& how,
                                    const std::filesystem::path& out);

/// OUT/layer_{ℓ}/cfg.json and sae_weights.safetensors {W_enc [D,F], b_enc, W_dec [F,D], b_dec}, as SAELens'
/// SAE.load_from_disk reads them.
std::uint64_t export_sae_lens(FileSystem& files, const AdapterBundle& bundle, const PackageExport& how,
                              const std::filesystem::path& out);

/// OUT/layers.{ℓ}.mlp/cfg.json and sae.safetensors {encoder.weight [F,D], encoder.bias, W_dec [F,D], b_dec}, as
/// sparsify's SparseCoder.load_from_disk reads them. It keeps the k largest activations behind its ReLU: exact where no
/// more than k features are active.
std::uint64_t export_sparsify(FileSystem& files, const AdapterBundle& bundle, const PackageExport& how,
                              const std::filesystem::path& out);

}  // namespace tadapt
