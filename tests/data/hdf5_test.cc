// Hdf5Image: what the HDF5 library reads back, equal bytes, chunk places, and overhead independent of chunk sizes.
#include "data/hdf5.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hdf5.h>

#include <chrono>
#include <cstring>
#include <fstream>
#include <numeric>
#include <thread>

#include "tests/support/errors.h"
#include "tests/support/temporary_directory.h"

namespace tadapt {
namespace {
using ::testing::HasSubstr;
using testing::TemporaryDirectory;

/// `values` as whole chunks, the last padded with zeros.
template <class T>
void append_all(Hdf5Image& image, const Hdf5Dataset& dataset, const std::vector<T>& values) {
  std::vector<T> padded = values;
  padded.resize(static_cast<std::size_t>(dataset.chunk_count()) * dataset.chunk_bytes() / sizeof(T));
  auto rest = std::as_bytes(std::span<const T>(padded));
  for (; !rest.empty(); rest = rest.subspan(dataset.chunk_bytes()))
    image.append_chunk(rest.first(dataset.chunk_bytes()));
}

std::vector<float> ramp(std::size_t count) {
  std::vector<float> values(count);
  std::iota(values.begin(), values.end(), -3.0f);
  return values;
}

Hdf5Image::Finished two_datasets() {
  Hdf5Image image("two.h5");
  const Hdf5Dataset floats{"layers/3/mlp_in", DType::kFloat32, {7, 5}, 3};
  image.create(floats);
  append_all(image, floats, ramp(35));
  const Hdf5Dataset doubles{"tokens/weight", DType::kFloat64, {7}, 7};
  image.create(doubles);
  append_all(image, doubles, std::vector<double>(7, 0.1));
  return image.finish();
}

std::vector<std::byte> content(const Hdf5Image::Finished& finished) {
  const auto bytes = finished.bytes.span<std::int8_t>();
  const auto view = std::as_bytes(bytes);
  return {view.begin(), view.end()};
}

/// The dataset as the HDF5 library converts it to `memory_type`.
template <class T>
std::vector<T> read_with_library(const Hdf5Image::Finished& finished, const char* name, hid_t memory_type,
                                 std::size_t count) {
  const TemporaryDirectory folder;
  const std::string path = folder / "image.h5";
  const auto bytes = content(finished);
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  EXPECT_GE(file, 0);
  const hid_t dataset = H5Dopen2(file, name, H5P_DEFAULT);
  EXPECT_GE(dataset, 0);
  const hid_t space = H5Dget_space(dataset);
  EXPECT_EQ(H5Sget_simple_extent_npoints(space), static_cast<hssize_t>(count));
  std::vector<T> values(count);
  EXPECT_GE(H5Dread(dataset, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), 0);
  H5Sclose(space);
  H5Dclose(dataset);
  H5Fclose(file);
  return values;
}

TEST(Hdf5ImageTest, LibraryReadsTheValuesBack) {
  const auto finished = two_datasets();
  EXPECT_EQ(read_with_library<float>(finished, "/layers/3/mlp_in", H5T_NATIVE_FLOAT, 35), ramp(35));
  EXPECT_EQ(read_with_library<double>(finished, "/tokens/weight", H5T_NATIVE_DOUBLE, 7), std::vector<double>(7, 0.1));
}

TEST(Hdf5ImageTest, ChunkPlacesHoldTheRows) {
  const auto finished = two_datasets();
  ASSERT_EQ(finished.chunks.size(), 2u);
  ASSERT_EQ(finished.chunks[0].size(), 3u);
  const auto bytes = content(finished);
  std::vector<float> expected = ramp(35);
  expected.resize(45);
  for (std::size_t i = 0; i < 3; ++i) {
    const Hdf5Chunk chunk = finished.chunks[0][i];
    ASSERT_EQ(chunk.bytes, 15 * sizeof(float));
    ASSERT_LE(chunk.offset + chunk.bytes, bytes.size());
    EXPECT_EQ(std::memcmp(bytes.data() + chunk.offset, expected.data() + 15 * i, chunk.bytes), 0) << i;
  }
}

TEST(Hdf5ImageTest, EveryBFloat16ReadsAsItsFloat) {
  std::vector<bfloat16> all(1 << 16);
  for (std::size_t i = 0; i < all.size(); ++i) all[i].bits = static_cast<std::uint16_t>(i);
  Hdf5Image image("bf16.h5");
  const Hdf5Dataset dataset{"x", DType::kBFloat16, {1 << 8, 1 << 8}, 100};
  image.create(dataset);
  append_all(image, dataset, all);
  const auto values = read_with_library<float>(image.finish(), "x", H5T_NATIVE_FLOAT, all.size());
  for (std::size_t i = 0; i < all.size(); ++i) {
    const float expected = static_cast<float>(all[i]);
    if (expected == expected) {
      ASSERT_EQ(values[i], expected) << i;
    } else {
      ASSERT_NE(values[i], values[i]) << i;
    }
  }
}

TEST(Hdf5ImageTest, EmptyDatasetHasItsShape) {
  Hdf5Image image("empty.h5");
  image.create({"a/b/x", DType::kBFloat16, {0, 16}, 4});
  image.create({"a/y", DType::kInt32, {0}, 1});
  const auto finished = image.finish();
  EXPECT_TRUE(finished.chunks[0].empty());
  EXPECT_TRUE(read_with_library<float>(finished, "a/b/x", H5T_NATIVE_FLOAT, 0).empty());
}

TEST(Hdf5ImageTest, EqualCallsGiveEqualBytesLater) {
  const auto first = content(two_datasets());
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));      // HDF5's time stamps count seconds
  const std::vector<std::string> dirt(100, std::string(5000, 'x'));  // another heap
  EXPECT_EQ(content(two_datasets()), first);
}

TEST(Hdf5ImageTest, BuiltByManyThreadsAtOnce) {
  const auto expected = content(two_datasets());
  std::vector<std::vector<std::byte>> made(4);
  {
    std::vector<std::jthread> threads;
    for (auto& bytes : made) threads.emplace_back([&bytes] { bytes = content(two_datasets()); });
  }
  for (const auto& bytes : made) EXPECT_EQ(bytes, expected);
}

/// Bytes of a file that are not chunks.
std::size_t overhead(std::int64_t chunks, std::int64_t chunk_rows, std::int64_t columns, std::int64_t missing_rows) {
  Hdf5Image image("overhead.h5");
  std::size_t data = 0;
  for (int i = 0; i < 30; ++i) {
    const Hdf5Dataset dataset{
        fmt::format("layers/{}/x", i), DType::kBFloat16, {chunks * chunk_rows - missing_rows, columns}, chunk_rows};
    image.create(dataset);
    append_all(image, dataset, std::vector<bfloat16>());
    data += dataset.chunk_bytes() * static_cast<std::size_t>(dataset.chunk_count());
  }
  return image.finish().bytes.bytes() - data;
}

TEST(Hdf5ImageTest, OverheadDependsOnChunkCountsOnly) {
  for (const std::int64_t chunks : {1, 2, 63, 64, 65, 130, 700}) {
    const std::size_t smallest = overhead(chunks, 1, 1, 0);
    EXPECT_EQ(overhead(chunks, 8, 24, 0), smallest) << chunks;
    if (chunks > 1) {
      EXPECT_EQ(overhead(chunks, 13, 7, 12), smallest) << chunks;
    }
  }
}

TEST(Hdf5ImageTest, LibraryFailureNamesImageDatasetAndReason) {
  Hdf5Image image("some/shard.h5");
  image.create({"layers/0/x", DType::kFloat32, {0, 4}, 1});
  EXPECT_ERROR(image.create({"layers/0/x", DType::kFloat32, {0, 4}, 1}), WriteError,
               AllOf(HasSubstr("some/shard.h5: layers/0/x"), HasSubstr("H5Dcreate2"), HasSubstr("already exists")));
  EXPECT_ERROR(image.create({"layers/0/y", DType::kFloat16, {0, 4}, 1}), WriteError, HasSubstr("float16"));
}

TEST(Hdf5ImageTest, MisuseIsRefused) {
  Hdf5Image image("x.h5");
  const std::vector<std::byte> row(4);
  EXPECT_ERROR(image.append_chunk(row), ShapeError, HasSubstr("x.h5"));
  EXPECT_ERROR(image.create({"x", DType::kFloat32, {2}, 3}), ShapeError, HasSubstr("chunks of 3 rows"));
  image.create({"x", DType::kFloat32, {2}, 1});
  image.append_chunk(row);
  EXPECT_ERROR(image.append_chunk(std::span(row).first(3)), ShapeError, HasSubstr("3 bytes"));
  EXPECT_ERROR(image.finish(), ShapeError, HasSubstr("1 of 2 chunks"));
}

}  // namespace
}  // namespace tadapt
