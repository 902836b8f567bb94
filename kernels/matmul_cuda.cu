#include <cublasLt.h>

#include <array>
#include <map>

#include "kernels/core/elementwise.cuh"
#include "kernels/core/memory.h"
#include "kernels/matmul.h"
#include "kernels/pointwise.h"

namespace tadapt::cuda {
namespace {

void check(cublasStatus_t status, const char* call) {
  if (status != CUBLAS_STATUS_SUCCESS) throw DeviceError("{}: {}", call, cublasLtGetStatusString(status));
}

/// What the choice of an algorithm depends on: types, transpositions, epilogue, sizes, alignments.
using ProductKind = std::array<std::int64_t, 10>;

/// cuBLASLt as one context uses it.
struct Library {
  static constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;
  cublasLtHandle_t handle = nullptr;
  Buffer workspace = Buffer(Device::kCuda, kWorkspaceBytes);
  Buffer left, right;                                      // operands in another type than they came in
  std::map<ProductKind, cublasLtMatmulAlgo_t> algorithms;  // asked for once: that takes longer than a small product
  Library() { check(cublasLtCreate(&handle), "cublasLtCreate"); }
  ~Library() { cublasLtDestroy(handle); }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;
};

cudaDataType_t type_of(DType dtype) { return dtype == DType::kFloat32 ? CUDA_R_32F : CUDA_R_16BF; }

/// x in `dtype`: itself, or converted into memory of the library's.
Tensor in_dtype(Context& context, const Tensor& x, DType dtype, Buffer& memory) {
  if (x.dtype() == dtype) return x;
  if (memory.bytes() < static_cast<std::size_t>(x.elements()) * bytes_per_element(dtype))
    memory = Buffer(Device::kCuda, static_cast<std::size_t>(x.elements()) * bytes_per_element(dtype));
  const Tensor converted(memory.data(), dtype, x.shape(), Device::kCuda);
  tadapt::convert(context, x, converted);
  return converted;
}

/// An operand as cuBLASLt sees it, column by column: our rows are its columns.
struct Operand {
  const void* numbers;
  std::int64_t rows, columns;  ///< of the column-major matrix
  cublasOperation_t operation;
};

/// result [M, N] column-major fp32 = op(a) · op(b), with bias along M and an epilogue.
struct Product {
  DType compute;
  Operand a, b;
  std::int64_t m, n;
  const float* bias;
  Epilogue epilogue;
  float* result;
};

/// How far an address and a number of bytes after it are aligned, up to 256 bytes.
std::uint32_t alignment(const void* address, std::int64_t bytes) {
  constexpr std::uintptr_t kMost = 256;
  const std::uintptr_t bits = reinterpret_cast<std::uintptr_t>(address) | static_cast<std::uintptr_t>(bytes) | kMost;
  return static_cast<std::uint32_t>(bits & (~bits + 1));
}

/// Of every row of an operand: the same for all leaves of a batch, wherever they begin.
std::uint32_t alignment(const Operand& operand, DType dtype) {
  return alignment(operand.numbers, operand.rows * static_cast<std::int64_t>(bytes_per_element(dtype)));
}
std::uint32_t result_alignment(const Product& product) {
  return alignment(product.result, product.m * static_cast<std::int64_t>(sizeof(float)));
}

struct Descriptors {
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, result = nullptr;
  cublasLtMatmulPreference_t preference = nullptr;

  explicit Descriptors(const Product& product) {
    check(cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
    set(CUBLASLT_MATMUL_DESC_TRANSA, product.a.operation);
    set(CUBLASLT_MATMUL_DESC_TRANSB, product.b.operation);
    const bool relu = product.epilogue == Epilogue::kRelu;
    if (product.bias != nullptr) {
      set(CUBLASLT_MATMUL_DESC_EPILOGUE, relu ? CUBLASLT_EPILOGUE_RELU_BIAS : CUBLASLT_EPILOGUE_BIAS);
      set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, product.bias);
    } else {
      set(CUBLASLT_MATMUL_DESC_EPILOGUE, relu ? CUBLASLT_EPILOGUE_RELU : CUBLASLT_EPILOGUE_DEFAULT);
    }
    const auto layout = [](cublasLtMatrixLayout_t& made, cudaDataType_t type, std::int64_t rows, std::int64_t columns) {
      check(cublasLtMatrixLayoutCreate(&made, type, static_cast<std::uint64_t>(rows),
                                       static_cast<std::uint64_t>(columns), rows),
            "cublasLtMatrixLayoutCreate");
    };
    layout(a, type_of(product.compute), product.a.rows, product.a.columns);
    layout(b, type_of(product.compute), product.b.rows, product.b.columns);
    layout(result, CUDA_R_32F, product.m, product.n);
    check(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, Library::kWorkspaceBytes);
    // Rows of a tensor may begin anywhere; unless told, the library takes every address for a multiple of 256.
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment(product.a, product.compute));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment(product.b, product.compute));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, result_alignment(product));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, result_alignment(product));
  }
  ~Descriptors() {
    cublasLtMatmulPreferenceDestroy(preference);
    cublasLtMatrixLayoutDestroy(result);
    cublasLtMatrixLayoutDestroy(b);
    cublasLtMatrixLayoutDestroy(a);
    cublasLtMatmulDescDestroy(operation);
  }
  Descriptors(const Descriptors&) = delete;
  Descriptors& operator=(const Descriptors&) = delete;

 private:
  template <class T>
  void set(cublasLtMatmulDescAttributes_t attribute, T value) {
    check(cublasLtMatmulDescSetAttribute(operation, attribute, &value, sizeof value), "cublasLtMatmulDescSetAttribute");
  }
  template <class T>
  void prefer(cublasLtMatmulPreferenceAttributes_t attribute, T value) {
    check(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value),
          "cublasLtMatmulPreferenceSetAttribute");
  }
};

ProductKind kind_of(const Product& product) {
  return {static_cast<std::int64_t>(product.compute),
          product.a.operation == CUBLAS_OP_T ? 1 : 0,
          product.b.operation == CUBLAS_OP_T ? 1 : 0,
          static_cast<std::int64_t>(product.epilogue) + (product.bias != nullptr ? 2 : 0),
          product.m,
          product.n,
          product.a.operation == CUBLAS_OP_T ? product.a.rows : product.a.columns,
          alignment(product.a, product.compute),
          alignment(product.b, product.compute),
          result_alignment(product)};
}

const cublasLtMatmulAlgo_t& algorithm_for(Library& library, const char* op, const Product& product,
                                          const Descriptors& descriptors) {
  const auto [found, is_new] = library.algorithms.try_emplace(kind_of(product));
  if (!is_new) return found->second;
  cublasLtMatmulHeuristicResult_t choice{};
  int choices = 0;
  check(cublasLtMatmulAlgoGetHeuristic(library.handle, descriptors.operation, descriptors.a, descriptors.b,
                                       descriptors.result, descriptors.result, descriptors.preference, 1, &choice,
                                       &choices),
        op);
  if (choices == 0) {
    library.algorithms.erase(found);
    throw DeviceError("{}: cuBLASLt knows no product of {} x {}", op, product.m, product.n);
  }
  found->second = choice.algo;
  return found->second;
}

void multiply(Context& context, const char* op, const Product& product) {
  Library& library = context.state<Library>();
  const Descriptors descriptors(product);
  const cublasLtMatmulAlgo_t& algorithm = algorithm_for(library, op, product, descriptors);
  const float one = 1.0f, zero = 0.0f;
  check(cublasLtMatmul(library.handle, descriptors.operation, &one, product.a.numbers, descriptors.a, product.b.numbers,
                       descriptors.b, &zero, product.result, descriptors.result, product.result, descriptors.result,
                       &algorithm, library.workspace.data(), Library::kWorkspaceBytes, stream_of(context)),
        op);
}

}  // namespace

std::string product_library() {
  const std::size_t version = cublasLtGetVersion();
  return fmt::format("cuBLASLt {}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

PackedWeights pack_weights(Context& context, const Tensor& weights, Layout layout, DType compute,
                           Directions directions) {
  auto impl = std::make_unique<PackedWeights::Impl>();
  const bool by_output = layout == Layout::kOutputInput;
  impl->outputs = weights.size(by_output ? 0 : 1);
  impl->inputs = weights.size(by_output ? 1 : 0);
  impl->compute = compute;
  impl->given = weights.dtype();
  impl->layout = layout;
  impl->directions = directions;  // cuBLASLt reads the same numbers either way
  impl->packed = Buffer(Device::kCuda, compute, weights.shape());
  PackedWeights packed(std::move(impl));
  cuda::repack_weights(context, weights, packed);
  return packed;
}

void repack_weights(Context& context, const Tensor& weights, PackedWeights& packed) {
  tadapt::convert(context, weights, packed.impl().packed.tensor());
}

// Row-major y [T, N] is column-major [N, T] = W · xᵀ; x [T, K] is column-major [K, T].
void matmul(Context& context, const Tensor& x, const PackedWeights& weights, const Tensor& bias, Epilogue epilogue,
            const Tensor& y) {
  if (x.size(0) == 0) return;
  const std::int64_t n = weights.outputs(), k = weights.inputs();
  const Tensor rows = in_dtype(context, x, weights.dtype(), context.state<Library>().left);
  const void* packed = weights.impl().packed.data();
  const bool by_output = weights.layout() == Layout::kOutputInput;
  const Operand a = by_output ? Operand{packed, k, n, CUBLAS_OP_T} : Operand{packed, n, k, CUBLAS_OP_N};
  multiply(context, "matmul",
           {.compute = weights.dtype(),
            .a = a,
            .b = {rows.data(), k, x.size(0), CUBLAS_OP_N},
            .m = n,
            .n = x.size(0),
            .bias = bias.empty() ? nullptr : numbers<const float>(bias),
            .epilogue = epilogue,
            .result = numbers<float>(y)});
}

// Row-major gradient [T, K] is column-major [K, T] = Wᵀ · cotangentᵀ; cotangent [T, N] is column-major [N, T].
void matmul_backward(Context& context, const Tensor& cotangent, const PackedWeights& weights, const Tensor& gradient) {
  if (cotangent.size(0) == 0) return;
  const std::int64_t n = weights.outputs(), k = weights.inputs();
  const Tensor rows = in_dtype(context, cotangent, weights.dtype(), context.state<Library>().left);
  const void* packed = weights.impl().packed.data();
  const bool by_output = weights.layout() == Layout::kOutputInput;
  const Operand a = by_output ? Operand{packed, k, n, CUBLAS_OP_N} : Operand{packed, n, k, CUBLAS_OP_T};
  multiply(context, "matmul_backward",
           {.compute = weights.dtype(),
            .a = a,
            .b = {rows.data(), n, cotangent.size(0), CUBLAS_OP_N},
            .m = k,
            .n = cotangent.size(0),
            .bias = nullptr,
            .epilogue = Epilogue::kNone,
            .result = numbers<float>(gradient)});
}

// Row-major gradient [N, K] is column-major [K, N] = rightᵀ · left, each column-major [·, T] as it lies.
void weight_gradient(Context& context, const Tensor& left, const Tensor& right, DType compute, const Tensor& gradient) {
  if (left.size(0) == 0 || gradient.elements() == 0) {
    cuda::clear(context, gradient);
    return;
  }
  Library& library = context.state<Library>();
  const Tensor l = in_dtype(context, left, compute, library.left);
  const Tensor r = in_dtype(context, right, compute, library.right);
  multiply(context, "weight_gradient",
           {.compute = compute,
            .a = {r.data(), right.size(1), right.size(0), CUBLAS_OP_N},
            .b = {l.data(), left.size(1), left.size(0), CUBLAS_OP_T},
            .m = right.size(1),
            .n = left.size(1),
            .bias = nullptr,
            .epilogue = Epilogue::kNone,
            .result = numbers<float>(gradient)});
}

}  // namespace tadapt::cuda
