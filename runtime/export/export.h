// Export: trained adapters in forms that others read.
#pragma once

#include <filesystem>
#include <string>

#include "data/file.h"
#include "runtime/bundle/adapter_bundle.h"

namespace tadapt {

enum class ExportFormat {
  kAdapters,  ///< adapters.safetensors + adapters.json: the adapters alone
  kAuthors,   ///< a Hugging Face directory as the adapters' authors save it: hybrid model and transcoders
  kCircuitTracer,
  kSaeLens,
  kSparsify,
};

/// "adapters", "authors", "circuit-tracer", "sae-lens" or "sparsify"; ConfigError that lists them otherwise.
ExportFormat parse_export_format(const std::string& text);

/// ConfigError naming the format when there are no adapters or they are no transcoders.
void require_transcoders(const AdapterBundle& bundle, const char* format);
/// The same when not all have one dictionary size; that size and width.
AdapterShape shape_of_transcoders(const AdapterBundle& bundle, const char* format);

/// All formats: OUT appears whole or not at all. It must not be there, or be an empty folder (WriteError otherwise).
/// OUT/adapters.json says {format_version, format, type, layers, base, target fingerprints, step}, OUT/CHECKSUMS holds
/// the CRC32C of every file and tensor.

/// Writes OUT/adapters.safetensors with `layers.{ℓ}.W_enc` [F,D], `.b_enc` [F], `.W_dec` [F,D], `.b_dec` [D], all fp32.
/// Returns bytes of tensors written.
std::uint64_t export_adapters(FileSystem& files, const AdapterBundle& bundle, const std::filesystem::path& out);

/// Writes a directory in the authors' layout (method: config.json with the target's keys, `transcoder_n_features`,
/// `transcoder_dec_bias`, architectures ["Qwen2ForCausalLMWithTranscoder"]; the target's tensors with the MLPs that the
/// adapters run beside;
/// `model.layers.{ℓ}.mlp.transcoder_enc.weight` [F,D], `.bias` [F], `transcoder_dec.weight` [D,F], `.bias` [D]), and
/// the tokenizer's files. A layer without an adapter keeps the target's MLP beside a transcoder of zeros, which is the
/// same function. ConfigError when the models are not those of the adapters, or when not all adapters have one
/// dictionary size. Returns bytes of tensors written.
std::uint64_t export_authors(FileSystem& files, const AdapterBundle& bundle, const std::filesystem::path& base,
                             const std::filesystem::path& target, const std::filesystem::path& out);

}  // namespace tadapt
