// A decoder written from the formulas alone, in double precision and with plain loops: the oracle of the real one.
#pragma once

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "data/safetensors.h"
#include "runtime/model/decoder_config.h"

namespace tadapt::testing {

using Matrix = std::vector<std::vector<double>>;  ///< one row per token

class ReferenceDecoder {
 public:
  ReferenceDecoder(const DecoderConfig& config, const NamedTensors& tensors) : config_(config) {
    for (const auto& [name, tensor] : tensors) {
      for (const float value : tensor.span<float>()) numbers_[name].push_back(static_cast<double>(value));
    }
  }

  struct Pass {
    std::vector<Matrix> mlp_in, mlp_out, residual;  ///< per layer; residual after the block
  };
  Pass run(const std::vector<std::int32_t>& ids) const {
    Pass pass;
    Matrix residual;
    const auto width = static_cast<std::size_t>(config_.width);
    for (const std::int32_t id : ids) {
      const double* row = tensor("model.embed_tokens.weight").data() + static_cast<std::size_t>(id) * width;
      residual.emplace_back(row, row + width);
    }
    for (int layer = 0; layer < config_.layers; ++layer) {
      const std::string prefix = "model.layers." + std::to_string(layer) + ".";
      add(residual, attention(prefix, norm(residual, prefix + "input_layernorm.weight")));
      pass.mlp_in.push_back(norm(residual, prefix + "post_attention_layernorm.weight"));
      pass.mlp_out.push_back(mlp(layer, pass.mlp_in.back()));
      add(residual, pass.mlp_out.back());
      pass.residual.push_back(residual);
    }
    return pass;
  }

  Matrix mlp(int layer, const Matrix& x) const {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".mlp.";
    Matrix gate = linear(x, prefix + "gate_proj.weight"), up = linear(x, prefix + "up_proj.weight");
    for (std::size_t t = 0; t < x.size(); ++t) {
      for (std::size_t i = 0; i < gate[t].size(); ++i) gate[t][i] *= up[t][i] / (1.0 + std::exp(-gate[t][i]));
    }
    return linear(gate, prefix + "down_proj.weight");
  }

 private:
  const std::vector<double>& tensor(const std::string& name) const { return numbers_.at(name); }

  static void add(Matrix& to, const Matrix& from) {
    for (std::size_t t = 0; t < to.size(); ++t) {
      for (std::size_t d = 0; d < to[t].size(); ++d) to[t][d] += from[t][d];
    }
  }

  Matrix linear(const Matrix& x, const std::string& weight, const std::string& bias = "") const {
    const std::vector<double>& w = tensor(weight);
    Matrix y;
    for (const std::vector<double>& row : x) {
      std::vector<double> out(w.size() / row.size(), 0.0);
      for (std::size_t n = 0; n < out.size(); ++n) {
        for (std::size_t k = 0; k < row.size(); ++k) out[n] += w[n * row.size() + k] * row[k];
        if (!bias.empty()) out[n] += tensor(bias)[n];
      }
      y.push_back(std::move(out));
    }
    return y;
  }

  Matrix norm(const Matrix& x, const std::string& weight) const {
    Matrix y = x;
    for (std::vector<double>& row : y) {
      double squares = 0;
      for (const double value : row) squares += value * value;
      const double scale = 1.0 / std::sqrt(squares / static_cast<double>(row.size()) + config_.norm_epsilon);
      for (std::size_t d = 0; d < row.size(); ++d) row[d] *= scale * tensor(weight)[d];
    }
    return y;
  }

  void rotate(Matrix& x) const {
    const auto size = static_cast<std::size_t>(config_.head_width);
    for (std::size_t t = 0; t < x.size(); ++t) {
      for (std::size_t head = 0; head < x[t].size(); head += size) {
        for (std::size_t j = 0; j < size / 2; ++j) {
          const double exponent = -2.0 * static_cast<double>(j) / static_cast<double>(size);
          const double angle = static_cast<double>(t) * std::pow(config_.rope_theta, exponent);
          double &a = x[t][head + j], &b = x[t][head + j + size / 2];
          const double old = a;
          a = old * std::cos(angle) - b * std::sin(angle);
          b = b * std::cos(angle) + old * std::sin(angle);
        }
      }
    }
  }

  Matrix attention(const std::string& prefix, const Matrix& x) const {
    const std::string p = prefix + "self_attn.";
    Matrix query = linear(x, p + "q_proj.weight", p + "q_proj.bias");
    Matrix key = linear(x, p + "k_proj.weight", p + "k_proj.bias");
    const Matrix value = linear(x, p + "v_proj.weight", p + "v_proj.bias");
    rotate(query);
    rotate(key);
    const auto size = static_cast<std::size_t>(config_.head_width), heads = static_cast<std::size_t>(config_.heads);
    const std::size_t shared = heads / static_cast<std::size_t>(config_.kv_heads);
    Matrix out(x.size(), std::vector<double>(heads * size, 0.0));
    for (std::size_t t = 0; t < x.size(); ++t) {
      for (std::size_t head = 0; head < heads; ++head) {
        std::vector<double> weights(t + 1, 0.0);
        double total = 0;
        for (std::size_t s = 0; s <= t; ++s) {
          for (std::size_t j = 0; j < size; ++j)
            weights[s] += query[t][head * size + j] * key[s][head / shared * size + j];
          weights[s] = std::exp(weights[s] / std::sqrt(static_cast<double>(size)));
          total += weights[s];
        }
        for (std::size_t s = 0; s <= t; ++s) {
          for (std::size_t j = 0; j < size; ++j) {
            out[t][head * size + j] += weights[s] / total * value[s][head / shared * size + j];
          }
        }
      }
    }
    return linear(out, p + "o_proj.weight");
  }

  DecoderConfig config_;
  std::map<std::string, std::vector<double>> numbers_;
};

}  // namespace tadapt::testing
