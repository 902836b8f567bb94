// The adapter model linearised at a prompt, in double precision and with plain loops, forwards only: the oracle of
// attribution, which goes backwards.
#pragma once

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "data/safetensors.h"
#include "runtime/bundle/adapter_bundle.h"
#include "runtime/model/decoder_config.h"

namespace tadapt::testing {

using Matrix = std::vector<std::vector<double>>;  ///< one row per token

class LinearisedOracle {
 public:
  /// What the linearised model is a function of. Biases are multiplied with `biases`.
  struct Sources {
    Matrix embeddings;
    std::vector<Matrix> activations;  ///< by layer; no columns where there is no adapter
    double biases = 1.0;
  };

  LinearisedOracle(const DecoderConfig& config, const NamedTensors& target, const NamedTensors& base,
                   const AdapterBundle& bundle, const std::vector<std::int32_t>& ids)
      : config_(config), layers_(static_cast<std::size_t>(config.layers)) {
    keep(target, numbers_);
    std::map<std::string, std::vector<double>> of_base;
    keep(base, of_base);
    for (const AdapterBundle::Layer& layer : bundle.layers) {
      const auto at = static_cast<std::size_t>(layer.layer);
      for (const char* part : {"gate", "up", "down"}) {
        const std::string name = fmt::format("model.layers.{}.mlp.{}_proj.weight", layer.layer, part);
        numbers_[name] = of_base.at(name);
      }
      const ParameterTensors masters = layer.store->master_views(0);
      for (const auto& [name, tensor] : masters.entries())
        for (const float value : tensor.span<float>()) layers_[at].adapter[name].push_back(static_cast<double>(value));
    }
    for (const std::int32_t id : ids) {
      const double* row = numbers_.at("model.embed_tokens.weight").data() + id * config.width;
      sources_.embeddings.emplace_back(row, row + config.width);
    }
    linearise();
  }

  /// Of the prompt itself.
  const Sources& sources() const { return sources_; }

  struct Reached {
    std::vector<Matrix> pre_activations;  ///< by layer
    std::vector<double> logits;           ///< after the last token, above their mean
  };
  Reached run(const Sources& sources) const {
    Reached reached;
    Matrix x = sources.embeddings;
    for (std::size_t layer = 0; layer < layers_.size(); ++layer) {
      const Layer& at = layers_[layer];
      add(x, attention(layer, scaled(x, at.first_scale, weight(layer, "input_layernorm")), sources.biases));
      const Matrix read = scaled(x, at.second_scale, weight(layer, "post_attention_layernorm"));
      add(x, mlp(layer, read));
      reached.pre_activations.push_back(encode(layer, read, sources.biases));
      add(x, decode(layer, sources.activations[layer], sources.biases));
    }
    const Matrix normed = scaled(x, last_scale_, numbers_.at("model.norm.weight"));
    reached.logits = linear({normed.back()}, numbers_.at(head()))[0];
    double mean = 0;
    for (const double logit : reached.logits) mean += logit / static_cast<double>(reached.logits.size());
    for (double& logit : reached.logits) logit -= mean;
    return reached;
  }

 private:
  struct Layer {
    std::map<std::string, std::vector<double>> adapter;
    std::vector<double> first_scale, second_scale;  ///< 1 / rms, by token
    std::vector<Matrix> weights;                    ///< attention's, [token][head][earlier token]
    Matrix of_gate, of_up;                          ///< what the gated product's halves are multiplied with
  };

  static void keep(const NamedTensors& tensors, std::map<std::string, std::vector<double>>& to) {
    for (const auto& [name, tensor] : tensors)
      for (const float value : tensor.span<float>()) to[name].push_back(static_cast<double>(value));
  }
  std::string head() const { return config_.tied_head ? "model.embed_tokens.weight" : "lm_head.weight"; }
  const std::vector<double>& weight(std::size_t layer, const std::string& name) const {
    return numbers_.at(fmt::format("model.layers.{}.{}.weight", layer, name));
  }
  const std::vector<double>& bias(std::size_t layer, const std::string& name) const {
    return numbers_.at(fmt::format("model.layers.{}.self_attn.{}_proj.bias", layer, name));
  }
  static void add(Matrix& to, const Matrix& from) {
    for (std::size_t t = 0; t < to.size(); ++t)
      for (std::size_t d = 0; d < to[t].size(); ++d) to[t][d] += from[t][d];
  }
  static Matrix linear(const Matrix& x, const std::vector<double>& w) {
    Matrix y;
    for (const std::vector<double>& row : x) {
      std::vector<double> out(w.size() / row.size(), 0.0);
      for (std::size_t n = 0; n < out.size(); ++n)
        for (std::size_t k = 0; k < row.size(); ++k) out[n] += w[n * row.size() + k] * row[k];
      y.push_back(std::move(out));
    }
    return y;
  }
  std::vector<double> scales(const Matrix& x) const {
    std::vector<double> scales;
    for (const std::vector<double>& row : x) {
      double squares = 0;
      for (const double value : row) squares += value * value;
      scales.push_back(1.0 / std::sqrt(squares / static_cast<double>(row.size()) + config_.norm_epsilon));
    }
    return scales;
  }
  static Matrix scaled(Matrix x, const std::vector<double>& scales, const std::vector<double>& gamma) {
    for (std::size_t t = 0; t < x.size(); ++t)
      for (std::size_t d = 0; d < x[t].size(); ++d) x[t][d] *= scales[t] * gamma[d];
    return x;
  }

  void rotate(Matrix& x) const {
    const auto size = static_cast<std::size_t>(config_.head_width);
    for (std::size_t t = 0; t < x.size(); ++t)
      for (std::size_t first = 0; first < x[t].size(); first += size)
        for (std::size_t j = 0; j < size / 2; ++j) {
          const double angle = static_cast<double>(t) *
                               std::pow(config_.rope_theta, -2.0 * static_cast<double>(j) / static_cast<double>(size));
          double &a = x[t][first + j], &b = x[t][first + j + size / 2];
          const double old = a;
          a = old * std::cos(angle) - b * std::sin(angle);
          b = b * std::cos(angle) + old * std::sin(angle);
        }
  }
  Matrix projected(std::size_t layer, const Matrix& x, const std::string& name, double biases) const {
    Matrix y = linear(x, weight(layer, "self_attn." + name + "_proj"));
    for (std::vector<double>& row : y)
      for (std::size_t n = 0; n < row.size(); ++n) row[n] += biases * bias(layer, name)[n];
    return y;
  }
  void weigh(std::size_t layer, const Matrix& normed) {
    Matrix query = projected(layer, normed, "q", 1.0), key = projected(layer, normed, "k", 1.0);
    rotate(query);
    rotate(key);
    const auto size = static_cast<std::size_t>(config_.head_width), heads = static_cast<std::size_t>(config_.heads);
    const std::size_t shared = heads / static_cast<std::size_t>(config_.kv_heads);
    for (std::size_t t = 0; t < normed.size(); ++t) {
      Matrix& of_token = layers_[layer].weights.emplace_back(heads, std::vector<double>(t + 1, 0.0));
      for (std::size_t head = 0; head < heads; ++head) {
        double total = 0;
        for (std::size_t s = 0; s <= t; ++s) {
          double product = 0;
          for (std::size_t j = 0; j < size; ++j)
            product += query[t][head * size + j] * key[s][head / shared * size + j];
          total += of_token[head][s] = std::exp(product / std::sqrt(static_cast<double>(size)));
        }
        for (double& one : of_token[head]) one /= total;
      }
    }
  }
  Matrix attention(std::size_t layer, const Matrix& normed, double biases) const {
    const Matrix value = projected(layer, normed, "v", biases);
    const auto size = static_cast<std::size_t>(config_.head_width), heads = static_cast<std::size_t>(config_.heads);
    const std::size_t shared = heads / static_cast<std::size_t>(config_.kv_heads);
    Matrix out(normed.size(), std::vector<double>(heads * size, 0.0));
    for (std::size_t t = 0; t < normed.size(); ++t)
      for (std::size_t head = 0; head < heads; ++head)
        for (std::size_t s = 0; s <= t; ++s)
          for (std::size_t j = 0; j < size; ++j)
            out[t][head * size + j] += layers_[layer].weights[t][head][s] * value[s][head / shared * size + j];
    return linear(out, weight(layer, "self_attn.o_proj"));
  }
  Matrix mlp(std::size_t layer, const Matrix& read) const {
    Matrix gate = linear(read, weight(layer, "mlp.gate_proj"));
    const Matrix up = linear(read, weight(layer, "mlp.up_proj"));
    for (std::size_t t = 0; t < gate.size(); ++t)
      for (std::size_t i = 0; i < gate[t].size(); ++i)
        gate[t][i] = layers_[layer].of_gate[t][i] * gate[t][i] + layers_[layer].of_up[t][i] * up[t][i];
    return linear(gate, weight(layer, "mlp.down_proj"));
  }
  Matrix encode(std::size_t layer, const Matrix& read, double biases) const {
    const auto& adapter = layers_[layer].adapter;
    if (adapter.empty()) return Matrix(read.size());
    Matrix pre = linear(read, adapter.at("W_enc"));
    for (std::vector<double>& row : pre)
      for (std::size_t i = 0; i < row.size(); ++i) row[i] += biases * adapter.at("b_enc")[i];
    return pre;
  }
  Matrix decode(std::size_t layer, const Matrix& activations, double biases) const {
    const auto width = static_cast<std::size_t>(config_.width);
    Matrix out(activations.size(), std::vector<double>(width, 0.0));
    const auto& adapter = layers_[layer].adapter;
    if (adapter.empty()) return out;
    for (std::size_t t = 0; t < out.size(); ++t)
      for (std::size_t d = 0; d < width; ++d) {
        out[t][d] = biases * adapter.at("b_dec")[d];
        for (std::size_t i = 0; i < activations[t].size(); ++i)
          out[t][d] += activations[t][i] * adapter.at("W_dec")[i * width + d];
      }
    return out;
  }

  /// Runs the model as it is, and keeps what counts as constant.
  void linearise() {
    Matrix x = sources_.embeddings;
    for (std::size_t layer = 0; layer < layers_.size(); ++layer) {
      Layer& at = layers_[layer];
      at.first_scale = scales(x);
      const Matrix normed = scaled(x, at.first_scale, weight(layer, "input_layernorm"));
      weigh(layer, normed);
      add(x, attention(layer, normed, 1.0));
      at.second_scale = scales(x);
      const Matrix read = scaled(x, at.second_scale, weight(layer, "post_attention_layernorm"));
      const Matrix gate = linear(read, weight(layer, "mlp.gate_proj")), up = linear(read, weight(layer, "mlp.up_proj"));
      at.of_gate = gate;
      at.of_up = gate;
      for (std::size_t t = 0; t < gate.size(); ++t)
        for (std::size_t i = 0; i < gate[t].size(); ++i) {
          const double sigmoid = 1.0 / (1.0 + std::exp(-gate[t][i]));
          at.of_gate[t][i] = 0.5 * sigmoid * up[t][i];
          at.of_up[t][i] = 0.5 * sigmoid * gate[t][i];
        }
      add(x, mlp(layer, read));
      Matrix activations = encode(layer, read, 1.0);
      for (std::vector<double>& row : activations)
        for (double& activation : row) activation = std::max(activation, 0.0);
      sources_.activations.push_back(activations);
      add(x, decode(layer, activations, 1.0));
    }
    last_scale_ = scales(x);
  }

  DecoderConfig config_;
  std::map<std::string, std::vector<double>> numbers_;
  std::vector<Layer> layers_;
  std::vector<double> last_scale_;
  Sources sources_;
};

}  // namespace tadapt::testing
