// Row formats of activation caches.
#include "data/row_codec.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/core/bfloat16.h"
#include "kernels/core/error.h"

namespace tadapt {
namespace {
/// Σ term(i) over eight partial sums, joined pairwise.
template <class Term>
double lane_sum(std::size_t count, Term&& term) {
  double lanes[8] = {};
  std::size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    for (std::size_t lane = 0; lane < 8; ++lane) lanes[lane] += term(i + lane);
  }
  for (; i < count; ++i) lanes[i % 8] += term(i);
  return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

/// Σ (row_i − stored(i))².
template <class Stored>
double error_square(std::span<const float> row, Stored&& stored) {
  return lane_sum(row.size(), [&](std::size_t i) {
    const double error = static_cast<double>(row[i]) - static_cast<double>(stored(i));
    return error * error;
  });
}

double encode_bfloat16(std::span<const float> row, std::byte* out) {
  auto* stored = reinterpret_cast<bfloat16*>(out);
  std::transform(row.begin(), row.end(), stored, [](float x) { return bfloat16(x); });
  return error_square(row, [&](std::size_t i) { return static_cast<float>(stored[i]); });
}

/// NaN is not larger than anything: a row with one has error NaN all the same, through its own difference.
float int8_scale(std::span<const float> row) {
  float largest = 0;
  for (const float x : row) largest = std::max(largest, std::abs(x));
  return largest / 127.0f;
}

double encode_int8(std::span<const float> row, float scale, std::byte* out) {
  auto* stored = reinterpret_cast<std::int8_t*>(out);
  std::transform(row.begin(), row.end(), stored, [scale](float x) -> std::int8_t {
    const double steps = std::nearbyint(static_cast<double>(x) / static_cast<double>(scale));
    // NaN is 0 / 0 in a row of zeros. The clamp matters where the scale is so small that it lost bits itself.
    return std::isnan(steps) ? std::int8_t{0} : static_cast<std::int8_t>(std::clamp(steps, -127.0, 127.0));
  });
  return error_square(row, [&](std::size_t i) { return scale * static_cast<float>(stored[i]); });
}
}  // namespace

double square_norm(std::span<const float> row) {
  return lane_sum(row.size(), [&](std::size_t i) {
    const double x = row[i];
    return x * x;
  });
}

EncodedRow encode_row(std::span<const float> row, DType dtype, std::byte* out) {
  EncodedRow encoded;
  encoded.square_norm = square_norm(row);
  switch (dtype) {
    case DType::kFloat32:
      std::memcpy(out, row.data(), row.size_bytes());
      encoded.error_square = encoded.square_norm * 0;  // NaN when the row is not finite
      return encoded;
    case DType::kBFloat16:
      encoded.error_square = encode_bfloat16(row, out);
      return encoded;
    case DType::kInt8:
      encoded.scale = int8_scale(row);
      encoded.error_square = encode_int8(row, encoded.scale, out);
      return encoded;
    default:
      throw ShapeError("rows cannot be stored as {}", name(dtype));
  }
}

EncodedRow encode_delivered_row(std::span<const float> row, DType dtype, std::byte* out) {
  if (dtype != DType::kInt8) return encode_row(row, dtype, out);
  std::vector<std::int8_t> stored(row.size());
  const EncodedRow encoded = encode_row(row, dtype, reinterpret_cast<std::byte*>(stored.data()));
  decode_int8_row(stored, encoded.scale, reinterpret_cast<float*>(out));
  return encoded;
}

void decode_int8_row(std::span<const std::int8_t> in, float scale, float* out) {
  std::transform(in.begin(), in.end(), out, [scale](std::int8_t x) { return scale * static_cast<float>(x); });
}

}  // namespace tadapt
