// The local objective of one transcoder in double precision, written from method and docstrings, for tests.
#pragma once

#include <cmath>
#include <cstddef>
#include <vector>

namespace tadapt::oracle {

struct Transcoder {
  std::size_t width, features;
  std::vector<double> encoder, encoder_bias, decoder, decoder_bias;  // [F,D], [F], [F,D], [D]
};

/// mean-style local loss of rows x, delta [T,D] with the given factors of Σ‖Δ−T‖² and Σ a‖W_dec,i‖.
inline double loss(const Transcoder& t, const std::vector<double>& x, const std::vector<double>& delta,
                   double error_factor, double sparsity_factor) {
  const std::size_t tokens = x.size() / t.width;
  double total = 0.0;
  for (std::size_t row = 0; row < tokens; ++row) {
    std::vector<double> output = t.decoder_bias;
    for (std::size_t i = 0; i < t.features; ++i) {
      double a = t.encoder_bias[i];
      for (std::size_t d = 0; d < t.width; ++d) a += t.encoder[i * t.width + d] * x[row * t.width + d];
      if (a <= 0.0) continue;
      double square = 0.0;
      for (std::size_t d = 0; d < t.width; ++d) {
        output[d] += a * t.decoder[i * t.width + d];
        square += t.decoder[i * t.width + d] * t.decoder[i * t.width + d];
      }
      total += sparsity_factor * a * std::sqrt(square);
    }
    for (std::size_t d = 0; d < t.width; ++d) {
      const double error = delta[row * t.width + d] - output[d];
      total += error_factor * error * error;
    }
  }
  return total;
}

}  // namespace tadapt::oracle
