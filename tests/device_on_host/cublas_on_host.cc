#include <cublasLt.h>

#include <bit>
#include <cstring>
#include <stdexcept>
#include <vector>

struct device_on_host_product {
  cublasOperation_t a = CUBLAS_OP_N, b = CUBLAS_OP_N;
  cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  const float* bias = nullptr;
};
struct device_on_host_layout {
  cudaDataType_t type;
  std::size_t rows, columns, leading;
};

namespace {

/// op(x) [rows, columns] in fp32, column by column.
struct Matrix {
  std::size_t rows, columns;
  std::vector<float> numbers;
};

Matrix read(const void* numbers, const device_on_host_layout& layout, cublasOperation_t operation) {
  const bool turned = operation == CUBLAS_OP_T;
  Matrix matrix{turned ? layout.columns : layout.rows, turned ? layout.rows : layout.columns, {}};
  matrix.numbers.resize(matrix.rows * matrix.columns);
  for (std::size_t r = 0; r < matrix.rows; ++r) {
    for (std::size_t c = 0; c < matrix.columns; ++c) {
      const std::size_t at = turned ? r * layout.leading + c : c * layout.leading + r;
      float number = 0;
      if (layout.type == CUDA_R_32F) {
        number = static_cast<const float*>(numbers)[at];
      } else {
        std::uint16_t bits = 0;
        std::memcpy(&bits, static_cast<const unsigned char*>(numbers) + 2 * at, sizeof bits);
        number = std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
      }
      matrix.numbers[c * matrix.rows + r] = number;
    }
  }
  return matrix;
}

}  // namespace

std::size_t cublasLtGetVersion() { return 0; }
const char* cublasLtGetStatusString(cublasStatus_t status) {
  return status == CUBLAS_STATUS_SUCCESS ? "success" : "invalid value";
}
cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = nullptr;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t) { return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* made, cublasComputeType_t, cudaDataType_t) {
  *made = new device_on_host_product;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t product) {
  delete product;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t product, cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, std::size_t bytes) {
  const auto set = [&](auto& field) {
    if (bytes != sizeof field) return CUBLAS_STATUS_INVALID_VALUE;
    std::memcpy(&field, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
  };
  if (attribute == CUBLASLT_MATMUL_DESC_TRANSA) return set(product->a);
  if (attribute == CUBLASLT_MATMUL_DESC_TRANSB) return set(product->b);
  if (attribute == CUBLASLT_MATMUL_DESC_EPILOGUE) return set(product->epilogue);
  return set(product->bias);
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* made, cudaDataType_t type, std::uint64_t rows,
                                          std::uint64_t columns, std::int64_t leading) {
  if (leading < static_cast<std::int64_t>(rows)) return CUBLAS_STATUS_INVALID_VALUE;
  *made = new device_on_host_layout{type, rows, columns, static_cast<std::size_t>(leading)};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete layout;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* made) {
  *made = nullptr;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t) { return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t, cublasLtMatmulPreferenceAttributes_t,
                                                    const void*, std::size_t) {
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                              cublasLtMatmulPreference_t, int, cublasLtMatmulHeuristicResult_t*,
                                              int* found) {
  *found = 1;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t product, const void*, const void* a,
                              cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
                              const void*, const void*, cublasLtMatrixLayout_t, void* d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t*, void*, std::size_t,
                              cudaStream_t) {
  const Matrix left = read(a, *a_layout, product->a), right = read(b, *b_layout, product->b);
  if (left.columns != right.rows || left.rows != d_layout->rows || right.columns != d_layout->columns)
    return CUBLAS_STATUS_INVALID_VALUE;
  const bool relu = (product->epilogue & CUBLASLT_EPILOGUE_RELU) != 0;
  const bool biased = (product->epilogue & CUBLASLT_EPILOGUE_BIAS) != 0;
  float* out = static_cast<float*>(d);
  for (std::size_t column = 0; column < right.columns; ++column) {
    std::vector<float> sums(left.rows, 0.0f);
    for (std::size_t k = 0; k < left.columns; ++k)
      for (std::size_t row = 0; row < left.rows; ++row)
        sums[row] += left.numbers[k * left.rows + row] * right.numbers[column * right.rows + k];
    for (std::size_t row = 0; row < left.rows; ++row) {
      const float sum = sums[row] + (biased ? product->bias[row] : 0.0f);
      out[column * d_layout->leading + row] = relu && sum < 0.0f ? 0.0f : sum;
    }
  }
  return CUBLAS_STATUS_SUCCESS;
}
