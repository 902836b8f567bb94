// Row formats: what is stored, the error it adds, and the rows that cannot be stored.
#include "data/row_codec.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/core/bfloat16.h"
#include "kernels/core/random.h"

namespace tadapt {
namespace {

std::vector<float> random_row(std::size_t count, float scale) {
  const RandomStream random(5, RandomPurpose::kTest, count, 0);
  std::vector<float> row(count);
  for (std::size_t i = 0; i < count; ++i) row[i] = (random.uniform(static_cast<std::uint32_t>(i)) - 0.5f) * scale;
  return row;
}

/// The row as it reads back.
std::vector<float> round_trip(const std::vector<float>& row, DType dtype, EncodedRow& encoded) {
  std::vector<std::byte> bytes(row.size() * bytes_per_element(dtype));
  encoded = encode_row(row, dtype, bytes.data());
  std::vector<float> back(row.size());
  if (dtype == DType::kFloat32) std::memcpy(back.data(), bytes.data(), bytes.size());
  if (dtype == DType::kInt8) {
    decode_int8_row({reinterpret_cast<const std::int8_t*>(bytes.data()), row.size()}, encoded.scale, back.data());
  }
  for (std::size_t i = 0; dtype == DType::kBFloat16 && i < row.size(); ++i) {
    bfloat16 value;
    std::memcpy(&value, bytes.data() + 2 * i, 2);
    back[i] = static_cast<float>(value);
  }
  return back;
}

TEST(RowCodecTest, ErrorsAreThoseOfTheStoredRow) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kInt8}) {
    for (const std::size_t width : {1u, 7u, 8u, 9u, 1000u}) {
      const std::vector<float> row = random_row(width, 3.0f);
      EncodedRow encoded;
      const std::vector<float> back = round_trip(row, dtype, encoded);
      double norm = 0, error = 0;
      for (std::size_t i = 0; i < width; ++i) {
        norm += std::pow(static_cast<double>(row[i]), 2);
        error += std::pow(static_cast<double>(row[i]) - static_cast<double>(back[i]), 2);
      }
      EXPECT_NEAR(encoded.square_norm, norm, 1e-13 * norm);
      EXPECT_NEAR(encoded.error_square, error, 1e-13 * norm);
    }
  }
}

TEST(RowCodecTest, Int8IsWithinHalfAStep) {
  const std::vector<float> row = random_row(500, 8.0f);
  EncodedRow encoded;
  const std::vector<float> back = round_trip(row, DType::kInt8, encoded);
  for (std::size_t i = 0; i < row.size(); ++i) EXPECT_LE(std::abs(row[i] - back[i]), 0.5001f * encoded.scale);
}

TEST(RowCodecTest, ZerosAndTiniestNumbersStayFinite) {
  for (const float value :
       {0.0f, std::numeric_limits<float>::denorm_min(), 190 * std::numeric_limits<float>::denorm_min()}) {
    const std::vector<float> row(9, value);
    EncodedRow encoded;
    for (const float back : round_trip(row, DType::kInt8, encoded)) EXPECT_LE(std::abs(back - value), value);
    EXPECT_TRUE(std::isfinite(encoded.error_square));
  }
}

TEST(RowCodecTest, ErrorOfNumbersThatDoNotFitIsNotFinite) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kInt8}) {
    for (const float bad : {NAN, INFINITY, -INFINITY}) {
      std::vector<float> row(11, 1.0f);
      row[10] = bad;
      EncodedRow encoded;
      round_trip(row, dtype, encoded);
      EXPECT_FALSE(std::isfinite(encoded.error_square)) << name(dtype) << bad;
    }
  }
  EncodedRow encoded;
  round_trip({std::numeric_limits<float>::max()}, DType::kBFloat16, encoded);
  EXPECT_FALSE(std::isfinite(encoded.error_square));
}

}  // namespace
}  // namespace tadapt
