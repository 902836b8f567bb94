// Salvage: whole shards stay, damaged ones are made anew, and what can be read is kept row by row.
#include <gmock/gmock.h>

#include "data/activation_cache_salvage.h"
#include "data/activation_cache_writer.h"
#include "tests/support/errors.h"
#include "tests/support/example_cache.h"
#include "tests/support/faulty_file_system.h"
#include "tests/support/temporary_directory.h"

namespace tadapt {
namespace {
using testing::element;
using ::testing::ElementsAre;
using testing::ExampleCache;
using ::testing::HasSubstr;

class CacheSalvage : public ::testing::TestWithParam<DType> {
 protected:
  void SetUp() override { manifest_ = example_.write(files_, cache()); }
  std::filesystem::path cache() const { return folder_ / "cache"; }
  std::filesystem::path shard(std::int64_t index) const { return cache() / shard_file_name(index); }
  ActivationCacheReader damaged() { return {files_, cache(), CacheOpen::kDamaged}; }

  /// One bit of a chunk of the second layer's Δ.
  void flip_bit(std::size_t shard_index, std::size_t chunk) {
    const CacheShard& listed = manifest_.shards[shard_index];
    const std::uint64_t offset =
        listed.datasets[dataset_index(manifest_.format, 1, LayerColumn::kDelta)].chunks[chunk].offset + 3;
    std::byte byte{};
    files_.open(shard(listed.index), OpenMode::kRead)->read(offset, {&byte, 1});
    byte ^= std::byte{0x10};
    files_.open(shard(listed.index), OpenMode::kReadWrite)->write(offset, {&byte, 1});
  }
  std::int64_t chunk_rows() const { return manifest_.shards[1].datasets.front().layout.chunk_rows; }

  RealFileSystem files_;
  testing::TemporaryDirectory folder_;
  const ExampleCache example_{
      {.layers = {0, 2}, .width = 9, .row_dtype = GetParam(), .chunk_bytes = 100, .sequences_per_shard = 3},
      {5, 0, 9, 11, 14, 3, 0, 0, 0, 30}};
  CacheManifest manifest_;
};

INSTANTIATE_TEST_SUITE_P(RowFormats, CacheSalvage, ::testing::Values(DType::kBFloat16, DType::kFloat32, DType::kInt8),
                         [](const auto& tested) { return std::string(name(tested.param)); });

TEST_P(CacheSalvage, DamagedShardsAreMadeAnewWithTheSameBytes) {
  const std::string before = read_text(files_, shard(1)), manifest = read_text(files_, cache() / kManifestFile);
  flip_bit(1, 2);
  files_.remove(shard(3));
  EXPECT_THAT(damaged_shards(damaged()), ElementsAre(1, 3));
  set_shards_aside(files_, cache(), {1, 3});
  EXPECT_TRUE(files_.exists(cache() / "shard-000001.h5.damaged"));
  EXPECT_FALSE(files_.exists(cache() / kManifestFile));
  EXPECT_TRUE(files_.exists(shard(0)));
  example_.write(files_, cache());
  EXPECT_EQ(read_text(files_, shard(1)), before);
  EXPECT_EQ(read_text(files_, cache() / kManifestFile), manifest);
  EXPECT_THAT(damaged_shards(damaged()), ElementsAre());
}

TEST_P(CacheSalvage, ReadableRowsKeepTheirValues) {
  flip_bit(1, 2);
  files_.remove(shard(3));
  const SalvagedRows salvaged = copy_readable_rows(files_, damaged(), folder_ / "kept");
  const std::int64_t begin = manifest_.shards[1].first_row + 2 * chunk_rows();
  const std::int64_t lost_in_chunk =
      std::min(chunk_rows(), manifest_.shards[1].first_row + manifest_.shards[1].rows - begin);
  EXPECT_EQ(salvaged.lost, lost_in_chunk + manifest_.shards[3].rows);
  const ActivationCacheReader kept(files_, folder_ / "kept");
  EXPECT_EQ(kept.rows(), manifest_.rows - salvaged.lost);
  EXPECT_EQ(kept.manifest().provenance.at("salvaged_from_rows"), std::to_string(manifest_.rows));
  Buffer x(Device::kCpu, kept.row_dtype(), {kept.rows(), kept.width()});
  Buffer delta(Device::kCpu, kept.row_dtype(), {kept.rows(), kept.width()});
  kept.read_rows(2, 0, kept.rows(), x.tensor(), delta.tensor());
  for (std::int64_t row = 0; row < kept.rows(); ++row) {
    const std::int64_t was = row < begin ? row : row + lost_in_chunk;
    const double expected = example_.stored_value(2, RowKind::kDelta, was, 5);
    ASSERT_NEAR(element(delta.tensor(), row, 5), expected,
                GetParam() == DType::kInt8 ? 1e-6 * std::abs(expected) : 0.0);
  }
  EXPECT_ERROR(copy_readable_rows(files_, damaged(), folder_ / "kept"), ConfigError, HasSubstr("is not empty"));
}

TEST(CacheSalvageTest, DamagedShardsStayAsideWhenThePowerGoes) {
  testing::FaultyFileSystem files;
  files.make_directories("/cache");
  files.sync_directory("/");
  for (const std::string& name : {shard_file_name(1), listing_file_name(1), std::string(kManifestFile)})
    write_atomically(files, "/cache/" + name, "content");
  set_shards_aside(files, "/cache", {1});
  files.lose_power(testing::Unsynced::kLost);
  EXPECT_THAT(files.list("/cache"), ElementsAre(shard_file_name(1) + ".damaged"));
}

TEST_P(CacheSalvage, OfNothingThereIsNoCache) {
  for (const CacheShard& one : manifest_.shards) files_.remove(shard(one.index));
  EXPECT_ERROR(copy_readable_rows(files_, damaged(), folder_ / "kept"), DataError, HasSubstr("not one row"));
}

}  // namespace
}  // namespace tadapt
