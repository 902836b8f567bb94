// DecoderConfig: one model's sizes and flags as its config.json gives them; Architecture: what a family fixes, as data.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "data/file.h"

namespace tadapt {

/// Names of a family's tensors; "{}" stands for the layer number.
struct TensorNames {
  std::string_view embeddings;
  std::string_view final_norm;
  std::string_view head;
  std::string_view attention_norm;
  std::string_view query, key, value, attention_out;
  std::string_view query_bias, key_bias, value_bias;  ///< empty: the family has no such biases
  std::string_view mlp_norm;
  std::string_view gate, up, down;
};

/// What all models of one family share: pre-norm blocks, RMSNorm, half-split RoPE, grouped-query causal attention with
/// scale 1/sqrt(head width), gated SiLU MLP. Another member of the family is one more entry of the table.
struct Architecture {
  std::string_view model_type;  ///< config.json's model_type
  std::string_view class_name;  ///< the entry config.json's architectures must name
  TensorNames names;
};

/// The tensor name made from a pattern of TensorNames.
std::string layer_tensor(std::string_view pattern, int layer);

struct DecoderConfig {
  const Architecture* architecture = nullptr;
  std::filesystem::path file;      ///< where it was read, for messages
  int layers = 0;                  ///< L
  std::int64_t width = 0;          ///< D
  std::int64_t mlp_width = 0;      ///< d_ff
  std::int64_t vocabulary = 0;     ///< V, padding rows included
  std::int64_t heads = 0;          ///< H
  std::int64_t kv_heads = 0;       ///< K
  std::int64_t head_width = 0;     ///< numbers per head, even
  std::int64_t max_positions = 0;  ///< longest sequence
  double rope_theta = 0;
  double norm_epsilon = 0;
  bool tied_head = false;  ///< the head is the embedding table

  std::int64_t query_width() const { return heads * head_width; }
  std::int64_t key_width() const { return kv_heads * head_width; }
};

/// Reads `directory`/config.json. MissingInputError without the file; DataError for what no model can have (malformed
/// JSON, a missing key, a wrong type, sizes that do not divide); ConfigError for what exists but is not supported here
/// (another family, RoPE scaling, sliding windows, quantised weights, another activation). Each names file and key.
DecoderConfig load_decoder_config(FileSystem& files, const std::filesystem::path& directory);

/// As load_decoder_config from the text of `file`.
DecoderConfig parse_decoder_config(const std::string& text, const std::filesystem::path& file);

/// ConfigError naming key and both values unless a base MLP can stand in the target's layers (same L, D and d_ff).
void require_same_mlp_shapes(const DecoderConfig& base, const DecoderConfig& target);

/// ConfigError naming both numbers when sequence number `sequence` of a corpus has more tokens than the model has
/// positions.
void require_positions(const DecoderConfig& config, std::int64_t sequence, std::int64_t tokens);

/// Why the base model cannot be run beside the target on the same tokens (another vocabulary, theta, tying or head
/// layout); nullopt when it can. The splices of base MLPs into the target are not concerned.
std::optional<std::string> base_row_refusal(const DecoderConfig& base, const DecoderConfig& target);

}  // namespace tadapt
