// Activation caches: what is written is read back, by anybody, in any order; sizes and statistics are exact.
#include "data/activation_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hdf5.h>

#include <cmath>
#include <numeric>

#include "data/activation_cache_reader.h"
#include "data/activation_cache_verify.h"
#include "tests/support/errors.h"
#include "tests/support/example_cache.h"
#include "tests/support/temporary_directory.h"

namespace tadapt {
namespace {
using ::testing::AllOf;
using testing::element;
using testing::ExampleCache;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::TemporaryDirectory;

/// Sequences of many lengths, some without kept rows; the third shard has none at all.
std::vector<std::int64_t> varied_sequences() { return {5, 0, 9, 1, 14, 3, 0, 0, 0, 30, 2, 1, 7}; }

CacheFormat small_format(DType dtype) {
  return {.layers = {0, 2, 11}, .width = 9, .row_dtype = dtype, .chunk_bytes = 100, .sequences_per_shard = 3};
}

std::map<std::string, std::string> all_files(FileSystem& files, const std::filesystem::path& directory) {
  std::map<std::string, std::string> contents;
  for (const std::string& name : files.list(directory)) contents[name] = read_text(files, directory / name);
  return contents;
}

class ActivationCacheTest : public ::testing::TestWithParam<DType> {
 protected:
  RealFileSystem files_;
  TemporaryDirectory folder_;
  const ExampleCache example_{small_format(GetParam()), varied_sequences()};
};

void expect_rows(const ExampleCache& example, const ActivationCacheReader& cache, int layer, std::int64_t begin,
                 std::int64_t end) {
  Buffer x(Device::kCpu, cache.row_dtype(), {end - begin, cache.width()});
  Buffer delta(Device::kCpu, cache.row_dtype(), {end - begin, cache.width()});
  cache.read_rows(layer, begin, end, x.tensor(), delta.tensor());
  for (std::int64_t row = begin; row < end; ++row) {
    for (std::int64_t d = 0; d < cache.width(); ++d) {
      ASSERT_EQ(element(x.tensor(), row - begin, d), example.stored_value(layer, RowKind::kInput, row, d)) << row;
      ASSERT_EQ(element(delta.tensor(), row - begin, d), example.stored_value(layer, RowKind::kDelta, row, d)) << row;
    }
  }
}

TEST_P(ActivationCacheTest, RowsComeBackFromAnyRange) {
  example_.write(files_, folder_.path());
  const ActivationCacheReader cache(files_, folder_.path());
  ASSERT_EQ(cache.rows(), example_.rows());
  ASSERT_EQ(cache.row_dtype(), GetParam() == DType::kBFloat16 ? DType::kBFloat16 : DType::kFloat32);
  for (const int layer : {0, 2, 11}) expect_rows(example_, cache, layer, 0, cache.rows());
  for (const auto& [begin, end] : {std::pair{0, 0}, {1, 2}, {4, 31}, {13, 14}, {28, 70}}) {
    expect_rows(example_, cache, 2, begin, end);
  }
}

TEST_P(ActivationCacheTest, TokensComeBack) {
  example_.write(files_, folder_.path());
  const CacheTokens tokens = ActivationCacheReader(files_, folder_.path()).read_tokens(3, example_.rows() - 1);
  ASSERT_EQ(tokens.ids.size(), static_cast<std::size_t>(example_.rows() - 4));
  for (std::size_t i = 0; i < tokens.ids.size(); ++i) {
    const auto row = static_cast<std::int64_t>(i) + 3;
    EXPECT_EQ(tokens.ids[i], example_.id(row));
    EXPECT_EQ(tokens.sequences[i], example_.sequence(row));
    EXPECT_EQ(tokens.positions[i], example_.position(row));
  }
}

TEST_P(ActivationCacheTest, FilesAreEqualWhoeverWritesThem) {
  const TemporaryDirectory other;
  example_.write(files_, folder_.path());
  // Two "ranks", each with its own writer, the last shard first; a third one finishes.
  ActivationCacheWriter even(files_, example_.options(other.path())), odd(files_, example_.options(other.path()));
  for (std::int64_t shard = example_.shard_count() - 1; shard >= 0; --shard) {
    example_.write_shard(shard % 2 == 0 ? even : odd, shard);
  }
  ActivationCacheWriter(files_, example_.options(other.path())).finalize();
  EXPECT_EQ(all_files(files_, other.path()), all_files(files_, folder_.path()));
}

TEST_P(ActivationCacheTest, SizesAreKnownBefore) {
  std::vector<std::int64_t> rows;
  std::uint64_t shard_bytes = 0, listing_bytes = 0;
  example_.write(files_, folder_.path());
  for (std::int64_t i = 0; i < example_.shard_count(); ++i) {
    rows.push_back(example_.shard_begin(i + 1) - example_.shard_begin(i));
    const std::uint64_t bytes = files_.file_size(folder_ / shard_file_name(i));
    EXPECT_EQ(shard_file_bytes(example_.format(), rows.back()), bytes) << rows.back();
    shard_bytes += bytes;
    listing_bytes += files_.file_size(folder_ / listing_file_name(i));
  }
  listing_bytes += files_.file_size(folder_ / kManifestFile);
  const CacheSize size = cache_size(example_.format(), rows);
  EXPECT_EQ(size.shard_bytes, shard_bytes);
  EXPECT_GE(size.listing_bytes, listing_bytes);
}

TEST_P(ActivationCacheTest, StatisticsAreThoseOfTheRows) {
  const CacheManifest written = example_.write(files_, folder_.path());
  const CacheManifest manifest = ActivationCacheReader(files_, folder_.path()).manifest();
  for (std::size_t i = 0; i < manifest.layers.size(); ++i) {
    const int layer = manifest.format.layers[i];
    double total = 0, first = 0, largest = 0, error = 0;
    for (std::int64_t row = 0; row < example_.rows(); ++row) {
      double norm = 0;
      for (std::int64_t d = 0; d < manifest.format.width; ++d) {
        const double exact = example_.value(layer, RowKind::kDelta, row, d);
        norm += exact * exact;
        error += std::pow(exact - static_cast<double>(example_.stored_value(layer, RowKind::kDelta, row, d)), 2);
      }
      total += norm;
      largest = std::max(largest, norm);
      if (example_.position(row) == 0) first += norm;
    }
    const auto rows = static_cast<double>(example_.rows());
    EXPECT_NEAR(manifest.layers[i].scale_square, total / rows, 1e-12 * total);
    EXPECT_NEAR(manifest.layers[i].largest_rows_share, largest / total, 1e-12);
    EXPECT_NEAR(manifest.layers[i].first_position_share, first / total, 1e-12);
    EXPECT_NEAR(manifest.layers[i].delta_rounding_error, std::sqrt(error / total), 1e-9);
    EXPECT_EQ(manifest.layers[i].input_rounding_error == 0, GetParam() == DType::kFloat32);
    EXPECT_EQ(manifest.layers[i].scale_square, written.layers[i].scale_square);
  }
  EXPECT_EQ(manifest.provenance, example_.options("").provenance);
}

TEST_P(ActivationCacheTest, VerifyFindsNothingWrong) {
  example_.write(files_, folder_.path());
  EXPECT_THAT(verify_cache(ActivationCacheReader(files_, folder_.path(), CacheOpen::kDamaged)), IsEmpty());
}

TEST_P(ActivationCacheTest, LibraryReadsTheShards) {
  example_.write(files_, folder_.path());
  const hid_t file = H5Fopen((folder_ / shard_file_name(1)).c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  ASSERT_GE(file, 0);
  const hid_t dataset = H5Dopen2(file, "/layers/11/mlp_delta", H5P_DEFAULT);
  ASSERT_GE(dataset, 0);
  const std::int64_t begin = example_.shard_begin(1), end = example_.shard_begin(2);
  std::vector<float> values(static_cast<std::size_t>((end - begin) * 9));
  ASSERT_GE(H5Dread(dataset, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), 0);
  for (std::size_t i = 0; GetParam() != DType::kInt8 && i < values.size(); ++i) {
    const auto at = static_cast<std::int64_t>(i);
    EXPECT_EQ(values[i], example_.stored_value(11, RowKind::kDelta, begin + at / 9, at % 9));
  }
  H5Dclose(dataset);
  H5Fclose(file);
}

INSTANTIATE_TEST_SUITE_P(RowFormats, ActivationCacheTest,
                         ::testing::Values(DType::kBFloat16, DType::kFloat32, DType::kInt8),
                         [](const auto& instance) { return std::string(name(instance.param)); });

class CacheWriterTest : public ::testing::Test {
 protected:
  RealFileSystem files_;
  TemporaryDirectory folder_;
  const ExampleCache example_{small_format(DType::kBFloat16), varied_sequences()};
};

TEST_F(CacheWriterTest, RestartKeepsWholeShardsAndRedoesTornOnes) {
  ActivationCacheWriter writer(files_, example_.options(folder_.path()));
  for (std::int64_t shard = 0; shard < example_.shard_count(); ++shard) {
    EXPECT_FALSE(writer.shard_is_whole(shard));
    example_.write_shard(writer, shard);
    EXPECT_TRUE(writer.shard_is_whole(shard));
  }
  writer.finalize();
  const auto whole = all_files(files_, folder_.path());

  files_.open(folder_ / shard_file_name(0), OpenMode::kReadWrite)->truncate(1000);
  files_.remove(folder_ / listing_file_name(1));
  files_.remove(folder_ / shard_file_name(2));
  files_.open(folder_ / listing_file_name(3), OpenMode::kReadWrite)->truncate(40);
  const std::byte zero{0};
  files_.open(folder_ / shard_file_name(4), OpenMode::kReadWrite)->write(0, {&zero, 1});
  ActivationCacheWriter again(files_, example_.options(folder_.path()));
  for (std::int64_t shard = 0; shard < example_.shard_count(); ++shard) {
    EXPECT_FALSE(again.shard_is_whole(shard)) << shard;
    example_.write_shard(again, shard);
    EXPECT_TRUE(again.shard_is_whole(shard)) << shard;
  }
  again.finalize();
  EXPECT_EQ(all_files(files_, folder_.path()), whole);
}

TEST_F(CacheWriterTest, AnotherCaptureInTheSameDirectoryIsRefused) {
  example_.write(files_, folder_.path());
  CacheWriterOptions options = example_.options(folder_.path());
  options.provenance["target"] = "t2";
  EXPECT_ERROR(ActivationCacheWriter(files_, options).shard_is_whole(0), ConfigError,
               AllOf(HasSubstr("another capture"), HasSubstr("target: t1 there, t2 wanted")));
  options = example_.options(folder_.path());
  options.format.row_dtype = DType::kFloat32;
  EXPECT_ERROR(ActivationCacheWriter(files_, options).finalize(), ConfigError, HasSubstr("row format"));
}

TEST_F(CacheWriterTest, ManifestNeedsEveryShard) {
  ActivationCacheWriter writer(files_, example_.options(folder_.path()));
  for (std::int64_t shard = 0; shard < example_.shard_count(); ++shard) {
    if (shard != 3) example_.write_shard(writer, shard);
  }
  EXPECT_ERROR(writer.finalize(), DataError, HasSubstr("shard-000003.h5: missing or not whole (shard 3 of 5)"));
  EXPECT_FALSE(files_.exists(folder_ / kManifestFile));
}

TEST_F(CacheWriterTest, CacheWithoutRowsIsRefused) {
  EXPECT_ERROR(ExampleCache(small_format(DType::kInt8), {0, 0, 0, 0}).write(files_, folder_.path()), DataError,
               HasSubstr("not one row"));
}

/// One shard of one row of one layer, for one wrong thing at a time.
struct OneRow {
  std::vector<std::int32_t> ids{1}, positions{0};
  std::vector<std::int64_t> sequences{0};
  std::vector<float> x{1, 2}, delta{3, 4};
  ShardRows rows() {
    const auto count = static_cast<std::int64_t>(x.size() / 2);
    return {
        ids, sequences, positions, {{Tensor::of(std::span(x), {count, 2}), Tensor::of(std::span(delta), {count, 2})}}};
  }
};

TEST_F(CacheWriterTest, RowsThatCannotBeAreRefused) {
  const auto writer = [&](DType dtype) {
    return ActivationCacheWriter(files_, {folder_.path(), {{5}, 2, dtype, 4096, 2}, 1, {}});
  };
  const auto write = [&](DType dtype, OneRow row) { writer(dtype).write_shard(0, row.rows()); };
  EXPECT_ERROR(write(DType::kFloat32, {.delta = {3, NAN}}), NonFiniteError,
               HasSubstr("layers/5/mlp_delta row 0 (sequence 0, position 0) holds a number that is not finite"));
  EXPECT_ERROR(write(DType::kInt8, {.x = {1, INFINITY}}), NonFiniteError, HasSubstr("layers/5/mlp_in row 0"));
  EXPECT_ERROR(write(DType::kBFloat16, {.x = {1, 3.4e38f}}), NonFiniteError, HasSubstr("does not fit bfloat16"));
  EXPECT_ERROR(write(DType::kFloat32, {.sequences = {2}}), ShapeError, HasSubstr("row 0 is of sequence 2"));
  EXPECT_ERROR(write(DType::kFloat32, {.sequences = {0, 1}}), ShapeError, HasSubstr("2 sequences"));
  EXPECT_ERROR(write(DType::kFloat32, {.x = {1, 2, 3, 4}}), ShapeError, HasSubstr("[2, 2]"));
  EXPECT_ERROR(write(DType::kFloat32, {{1, 1}, {0, 0}, {0, 0}, {1, 2, 3, 4}, {1, 2, 3, 4}}), ShapeError,
               HasSubstr("out of order"));
  EXPECT_ERROR(writer(DType::kFloat32).write_shard(1, OneRow().rows()), ShapeError, HasSubstr("only 1 shards"));
  EXPECT_THAT(files_.list(folder_.path()), IsEmpty());
}

TEST(CacheFormatTest, ImpossibleFormatsAreRefused) {
  const CacheFormat good = small_format(DType::kBFloat16);
  const auto refused = [&](auto&& change, const char* words) {
    CacheFormat format = good;
    change(format);
    EXPECT_ERROR(check_format(format), ConfigError, HasSubstr(words));
  };
  check_format(good);
  refused([](CacheFormat& f) { f.layers = {}; }, "no layers");
  refused([](CacheFormat& f) { f.layers = {1, 1}; }, "ascending");
  refused([](CacheFormat& f) { f.layers = {-1}; }, "not negative");
  refused([](CacheFormat& f) { f.width = 0; }, "width is 0");
  refused([](CacheFormat& f) { f.chunk_bytes = std::int64_t{1} << 40; }, "chunk_bytes");
  refused([](CacheFormat& f) { f.sequences_per_shard = 0; }, "sequences_per_shard");
  refused([](CacheFormat& f) { f.row_dtype = DType::kFloat16; }, "float16");
}

TEST(CacheFormatTest, SizeEstimateIsExactForManyShapes) {
  RealFileSystem files;
  for (const std::int64_t rows : {0, 1, 2, 57, 64, 65, 200, 1031}) {
    for (const DType dtype : {DType::kBFloat16, DType::kInt8}) {
      const TemporaryDirectory folder;
      const ExampleCache example({.layers = {3}, .width = 4, .row_dtype = dtype, .chunk_bytes = 24}, {rows, 1});
      ActivationCacheWriter writer(files, example.options(folder.path()));
      example.write_shard(writer, 0);
      EXPECT_EQ(shard_file_bytes(example.format(), rows + 1), files.file_size(folder / shard_file_name(0))) << rows;
    }
  }
}

}  // namespace
}  // namespace tadapt
