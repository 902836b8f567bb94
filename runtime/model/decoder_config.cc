#include "runtime/model/decoder_config.h"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "data/json.h"
#include "kernels/core/error.h"

namespace tadapt {
namespace {

using nlohmann::json;

constexpr std::uint64_t kFileCapBytes = 16u << 20;
constexpr std::int64_t kMaxLayers = 1 << 12;
constexpr std::int64_t kMaxHeads = 1 << 16;
constexpr std::int64_t kMaxWidth = 1 << 24;
constexpr std::int64_t kMaxVocabulary = 1 << 26;
constexpr std::int64_t kMaxPositions = std::numeric_limits<std::int32_t>::max();
constexpr double kDefaultTheta = 10000.0;

constexpr std::array kArchitectures{
    Architecture{.model_type = "qwen2",
                 .class_name = "Qwen2ForCausalLM",
                 .names = {.embeddings = "model.embed_tokens.weight",
                           .final_norm = "model.norm.weight",
                           .head = "lm_head.weight",
                           .attention_norm = "model.layers.{}.input_layernorm.weight",
                           .query = "model.layers.{}.self_attn.q_proj.weight",
                           .key = "model.layers.{}.self_attn.k_proj.weight",
                           .value = "model.layers.{}.self_attn.v_proj.weight",
                           .attention_out = "model.layers.{}.self_attn.o_proj.weight",
                           .query_bias = "model.layers.{}.self_attn.q_proj.bias",
                           .key_bias = "model.layers.{}.self_attn.k_proj.bias",
                           .value_bias = "model.layers.{}.self_attn.v_proj.bias",
                           .mlp_norm = "model.layers.{}.post_attention_layernorm.weight",
                           .gate = "model.layers.{}.mlp.gate_proj.weight",
                           .up = "model.layers.{}.mlp.up_proj.weight",
                           .down = "model.layers.{}.mlp.down_proj.weight"}},
};

/// One line of a JSON value, short enough for a message.
std::string shown(const json& value) {
  std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

/// config.json with checked access; null counts as absent, as it does in the wild.
class ConfigFile {
 public:
  ConfigFile(json root, std::filesystem::path file) : root_(std::move(root)), file_(std::move(file)) {}

  const json* find(const char* key) const { return find_in(root_, key); }
  static const json* find_in(const json& object, const char* key) {
    const auto found = object.find(key);
    return found == object.end() || found->is_null() ? nullptr : &*found;
  }
  const json& need(const char* key) const {
    const json* value = find(key);
    if (value == nullptr) throw DataError("{}: key {} is missing", file_.string(), key);
    return *value;
  }
  std::int64_t size(const char* key, std::int64_t most) const {
    const json& value = need(key);
    const bool fits = value.is_number_unsigned() && value.get<std::uint64_t>() >= 1 &&
                      value.get<std::uint64_t>() <= static_cast<std::uint64_t>(most);
    if (!fits) throw wrong(key, fmt::format("an integer from 1 to {}", most), value);
    return value.get<std::int64_t>();
  }
  std::int64_t size_or(const char* key, std::int64_t most, std::int64_t fallback) const {
    return find(key) == nullptr ? fallback : size(key, most);
  }
  bool flag_or(const char* key, bool fallback) const {
    const json* value = find(key);
    if (value == nullptr) return fallback;
    if (!value->is_boolean()) throw wrong(key, "true or false", *value);
    return value->get<bool>();
  }
  double positive(const char* key, const json& value) const {
    if (!value.is_number() || !(value.get<double>() > 0) || !std::isfinite(value.get<double>())) {
      throw wrong(key, "a positive number", value);
    }
    return value.get<double>();
  }
  std::string text(const char* key, const json& value) const {
    if (!value.is_string()) throw wrong(key, "a string", value);
    return value.get<std::string>();
  }
  const json& object(const char* key, const json& value) const {
    if (!value.is_object()) throw wrong(key, "an object", value);
    return value;
  }
  DataError wrong(const char* key, const std::string& expected, const json& found) const {
    return DataError("{}: {} must be {}, found {}", file_.string(), key, expected, shown(found));
  }
  ConfigError unsupported(const char* key, const json& found, std::string_view supported) const {
    return ConfigError("{}: {} {} is not supported ({})", file_.string(), key, shown(found), supported);
  }
  const std::filesystem::path& file() const { return file_; }

 private:
  json root_;
  std::filesystem::path file_;
};

ConfigFile parse(const std::string& text, const std::filesystem::path& file) {
  json root = parse_json(text, file);
  if (!root.is_object()) throw DataError("{}: not a JSON object", file.string());
  return ConfigFile(std::move(root), file);
}

std::string known_model_types() {
  std::string list;
  for (const Architecture& architecture : kArchitectures) {
    list += (list.empty() ? "" : ", ") + std::string(architecture.model_type);
  }
  return list;
}

const Architecture& architecture_of(const ConfigFile& config) {
  const json& type = config.need("model_type");
  const std::string wanted = config.text("model_type", type);
  for (const Architecture& architecture : kArchitectures) {
    if (architecture.model_type != wanted) continue;
    const json* classes = config.find("architectures");
    const bool named = classes == nullptr || *classes == json::array({std::string(architecture.class_name)});
    if (!named) {
      throw config.unsupported("architectures", *classes, fmt::format("supported: [{}]", architecture.class_name));
    }
    return architecture;
  }
  throw config.unsupported("model_type", type, "supported: " + known_model_types());
}

/// Any rope_scaling or rope_parameters other than the plain rotation is refused by its name.
void refuse_rope_scaling(const ConfigFile& config, const char* key, const json& parameters) {
  for (const char* type_key : {"rope_type", "type"}) {
    const json* type = ConfigFile::find_in(config.object(key, parameters), type_key);
    if (type != nullptr && *type != "default") throw config.unsupported(key, parameters, "only rope_type default");
  }
  for (const auto& [name, value] : parameters.items()) {
    const bool plain = name == "rope_type" || name == "type" || name == "rope_theta" || value.is_null();
    if (!plain) throw config.unsupported(key, parameters, fmt::format("{} is not known for rope_type default", name));
  }
}

double rope_theta_of(const ConfigFile& config) {
  const json* theta = config.find("rope_theta");
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const json* parameters = config.find(key);
    if (parameters == nullptr) continue;
    refuse_rope_scaling(config, key, *parameters);
    const json* inner = ConfigFile::find_in(*parameters, "rope_theta");
    if (inner == nullptr) continue;
    if (theta != nullptr && *theta != *inner) {
      throw DataError("{}: rope_theta is {} in one place and {} in another", config.file().string(), shown(*theta),
                      shown(*inner));
    }
    theta = inner;
  }
  return theta == nullptr ? kDefaultTheta : config.positive("rope_theta", *theta);
}

/// Windows shorter than the longest sequence would change attention; wider ones change nothing.
void refuse_sliding_windows(const ConfigFile& config, const DecoderConfig& made) {
  if (!config.flag_or("use_sliding_window", false)) return;
  const std::int64_t window = config.size_or("sliding_window", kMaxPositions, 4096);
  if (window >= made.max_positions) return;
  const json* types = config.find("layer_types");
  const json* first = config.find("max_window_layers");
  const bool all_full = types == nullptr
                            ? first != nullptr && first->is_number() && *first >= made.layers
                            : types->is_array() && *types == json::array_t(types->size(), "full_attention");
  if (all_full) return;
  throw config.unsupported(
      "sliding_window", window,
      fmt::format("use_sliding_window is true and max_position_embeddings is {}", made.max_positions));
}

void refuse_unsupported(const ConfigFile& config, const DecoderConfig& made) {
  const json& activation = config.need("hidden_act");
  if (activation != "silu") throw config.unsupported("hidden_act", activation, "only silu");
  for (const char* key : {"quantization_config", "compression_config"}) {
    if (const json* value = config.find(key)) throw config.unsupported(key, *value, "only F32, F16 and BF16 weights");
  }
  if (config.flag_or("use_mrope", false)) throw config.unsupported("use_mrope", true, "only plain RoPE");
  const json* rotary = config.find("partial_rotary_factor");
  if (rotary != nullptr && *rotary != 1) throw config.unsupported("partial_rotary_factor", *rotary, "only 1");
  refuse_sliding_windows(config, made);
}

void require_divisible(const DecoderConfig& config, const char* what, std::int64_t whole, const char* by,
                       std::int64_t part) {
  if (whole % part == 0) return;
  throw DataError("{}: {} {} is not a multiple of {} {}", config.file.string(), what, whole, by, part);
}

}  // namespace

std::string layer_tensor(std::string_view pattern, int layer) { return fmt::format(fmt::runtime(pattern), layer); }

DecoderConfig parse_decoder_config(const std::string& text, const std::filesystem::path& file) {
  const ConfigFile config = parse(text, file);
  DecoderConfig made{.architecture = &architecture_of(config), .file = file};
  made.layers = static_cast<int>(config.size("num_hidden_layers", kMaxLayers));
  made.width = config.size("hidden_size", kMaxWidth);
  made.mlp_width = config.size("intermediate_size", kMaxWidth);
  made.vocabulary = config.size("vocab_size", kMaxVocabulary);
  made.heads = config.size("num_attention_heads", kMaxHeads);
  made.kv_heads = config.size_or("num_key_value_heads", kMaxHeads, made.heads);
  made.max_positions = config.size("max_position_embeddings", kMaxPositions);
  require_divisible(made, "num_attention_heads", made.heads, "num_key_value_heads", made.kv_heads);
  if (config.find("head_dim") == nullptr) {
    require_divisible(made, "hidden_size", made.width, "num_attention_heads", made.heads);
  }
  made.head_width = config.size_or("head_dim", kMaxWidth, made.width / made.heads);
  require_divisible(made, "head width", made.head_width, "2 (rotary pairs):", 2);
  made.rope_theta = rope_theta_of(config);
  made.norm_epsilon = config.positive("rms_norm_eps", config.need("rms_norm_eps"));
  made.tied_head = config.flag_or("tie_word_embeddings", false);
  refuse_unsupported(config, made);
  return made;
}

DecoderConfig load_decoder_config(FileSystem& files, const std::filesystem::path& directory) {
  const std::filesystem::path file = directory / "config.json";
  return parse_decoder_config(read_text(files, file, kFileCapBytes), file);
}

void require_same_mlp_shapes(const DecoderConfig& base, const DecoderConfig& target) {
  const auto require_same = [&](const char* key, std::int64_t of_base, std::int64_t of_target) {
    if (of_base == of_target) return;
    throw ConfigError("base and target differ: {} is {} in {} and {} in {}", key, of_base, base.file.string(),
                      of_target, target.file.string());
  };
  require_same("num_hidden_layers", base.layers, target.layers);
  require_same("hidden_size", base.width, target.width);
  require_same("intermediate_size", base.mlp_width, target.mlp_width);
}

void require_positions(const DecoderConfig& config, std::int64_t sequence, std::int64_t tokens) {
  if (tokens > config.max_positions) {
    throw ConfigError("sequence {} has {} tokens, max_position_embeddings in {} is {}; set corpus.max_sequence_tokens",
                      sequence, tokens, config.file.string(), config.max_positions);
  }
}

std::optional<std::string> base_row_refusal(const DecoderConfig& base, const DecoderConfig& target) {
  const auto differ = [&](const char* key, auto of_base, auto of_target) {
    return fmt::format("{} is {} in {} and {} in {}", key, of_base, base.file.string(), of_target,
                       target.file.string());
  };
  if (base.vocabulary != target.vocabulary) return differ("vocab_size", base.vocabulary, target.vocabulary);
  if (base.rope_theta != target.rope_theta) return differ("rope_theta", base.rope_theta, target.rope_theta);
  if (base.tied_head != target.tied_head) return differ("tie_word_embeddings", base.tied_head, target.tied_head);
  if (base.heads != target.heads) return differ("num_attention_heads", base.heads, target.heads);
  if (base.kv_heads != target.kv_heads) return differ("num_key_value_heads", base.kv_heads, target.kv_heads);
  if (base.head_width != target.head_width) return differ("head_dim", base.head_width, target.head_width);
  return std::nullopt;
}

}  // namespace tadapt
