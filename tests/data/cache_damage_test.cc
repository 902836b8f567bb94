// Damaged caches: every kind of damage is one clear line, and what is not damaged stays readable.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "data/activation_cache_reader.h"
#include "data/activation_cache_verify.h"
#include "data/json.h"
#include "tests/support/campaign.h"
#include "tests/support/errors.h"
#include "tests/support/example_cache.h"
#include "tests/support/temporary_directory.h"

namespace tadapt {
namespace {
using nlohmann::json;
using ::testing::AllOf;
using testing::element;
using ::testing::ElementsAre;
using testing::ExampleCache;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using testing::TemporaryDirectory;

constexpr std::size_t kDamagedShard = 1;
constexpr std::size_t kDamagedChunk = 2;

class CacheDamageTest : public ::testing::Test {
 protected:
  void SetUp() override { manifest_ = example_.write(files_, folder_.path()); }

  std::filesystem::path shard_path(std::size_t shard = kDamagedShard) const {
    return folder_ / shard_file_name(static_cast<std::int64_t>(shard));
  }
  /// Address of a chunk of layers/2/mlp_delta.
  std::uint64_t chunk_offset(std::size_t chunk = kDamagedChunk) const {
    return delta_dataset(manifest_).chunks[chunk].offset;
  }
  const CacheDataset& delta_dataset(const CacheManifest& manifest) const {
    return manifest.shards[kDamagedShard].datasets[dataset_index(manifest.format, 1, LayerColumn::kDelta)];
  }
  void overwrite(const std::filesystem::path& path, std::uint64_t offset, std::span<const std::byte> bytes) {
    files_.open(path, OpenMode::kReadWrite)->write(offset, bytes);
  }
  void flip_bit(const std::filesystem::path& path, std::uint64_t offset) {
    std::byte byte{};
    files_.open(path, OpenMode::kRead)->read(offset, {&byte, 1});
    byte ^= std::byte{0x10};
    overwrite(path, offset, {&byte, 1});
  }
  std::vector<std::string> verify() {
    return verify_cache(ActivationCacheReader(files_, folder_.path(), CacheOpen::kDamaged));
  }
  void read(const ActivationCacheReader& cache, std::int64_t begin, std::int64_t end) {
    Buffer x(Device::kCpu, cache.row_dtype(), {end - begin, cache.width()});
    Buffer delta(Device::kCpu, cache.row_dtype(), {end - begin, cache.width()});
    cache.read_rows(2, begin, end, x.tensor(), delta.tensor());
    for (std::int64_t row = begin; row < end; ++row) {
      ASSERT_EQ(element(delta.tensor(), row - begin, 5), example_.stored_value(2, RowKind::kDelta, row, 5));
    }
  }
  /// Rows of the damaged chunk, and that all others of the layer can be read.
  void expect_only_chunk_lost(const ActivationCacheReader& cache) {
    const std::int64_t begin = first_lost_row(), end = begin + chunk_rows();
    read(cache, 0, begin);
    read(cache, end, cache.rows());
    EXPECT_ERROR(read(cache, begin, begin + 1), DataError, damaged_chunk());
    EXPECT_ERROR(read(cache, end - 1, cache.rows()), DataError, damaged_chunk());
  }
  std::int64_t chunk_rows() const { return delta_dataset(manifest_).layout.chunk_rows; }
  std::int64_t first_lost_row() const {
    return manifest_.shards[kDamagedShard].first_row + static_cast<std::int64_t>(kDamagedChunk) * chunk_rows();
  }
  ::testing::Matcher<std::string> damaged_chunk() const {
    return HasSubstr(fmt::format("shard-000001.h5: layers/2/mlp_delta chunk 2 (token rows {} to {}): damaged: CRC32C",
                                 first_lost_row(), first_lost_row() + chunk_rows() - 1));
  }
  /// A changed manifest that is signed again, as if somebody had made it so.
  std::string changed_manifest(const std::function<void(json&)>& change) const {
    json whole = parse_json(to_json(manifest_), "manifest");
    whole.erase("crc32c");
    change(whole);
    if (!whole.is_object()) whole = json::object();
    const std::string text = whole.dump();
    whole["crc32c"] = crc32c(std::as_bytes(std::span(text)));
    return whole.dump();
  }
  void put_manifest(const std::string& text) {
    files_.open(folder_ / kManifestFile, OpenMode::kCreate)->write(0, std::as_bytes(std::span(text)));
  }
  void open() { ActivationCacheReader(files_, folder_.path()); }

  RealFileSystem files_;
  TemporaryDirectory folder_;
  const ExampleCache example_{
      {.layers = {0, 2}, .width = 9, .row_dtype = DType::kBFloat16, .chunk_bytes = 100, .sequences_per_shard = 3},
      {5, 0, 9, 11, 14, 3, 0, 0, 0, 30}};
  CacheManifest manifest_;
};

TEST_F(CacheDamageTest, FlippedBitIsNamedAndTheRestReads) {
  flip_bit(shard_path(), chunk_offset() + 17);
  EXPECT_THAT(verify(), ElementsAre(damaged_chunk()));
  expect_only_chunk_lost(ActivationCacheReader(files_, folder_.path()));
}

TEST_F(CacheDamageTest, ZeroedChunkIsNamedAndTheRestReads) {
  overwrite(shard_path(), chunk_offset(), std::vector<std::byte>(delta_dataset(manifest_).layout.chunk_bytes()));
  EXPECT_THAT(verify(), ElementsAre(damaged_chunk()));
  expect_only_chunk_lost(ActivationCacheReader(files_, folder_.path()));
}

TEST_F(CacheDamageTest, DamageBesideChunksIsFound) {
  flip_bit(shard_path(), 20);
  EXPECT_THAT(verify(), ElementsAre(AllOf(HasSubstr("shard-000001.h5"), HasSubstr("beside its chunks"))));
}

TEST_F(CacheDamageTest, EveryDamagedChunkIsReported) {
  flip_bit(shard_path(), chunk_offset(0));
  flip_bit(shard_path(), chunk_offset(3));
  flip_bit(shard_path(3), manifest_.shards[3].datasets.back().chunks[0].offset);
  EXPECT_THAT(verify(), ElementsAre(HasSubstr("layers/2/mlp_delta chunk 0"), HasSubstr("layers/2/mlp_delta chunk 3"),
                                    HasSubstr("shard-000003.h5: tokens/position chunk 0")));
}

TEST_F(CacheDamageTest, RandomBitFlipsAreAllFound) {
  const RandomStream random(1, RandomPurpose::kTest, 0, 0);
  for (std::uint32_t i = 0; i < 100; ++i) {
    const std::size_t shard = random.below(2 * i, manifest_.shards.size());
    const std::uint64_t offset = random.below(2 * i + 1, manifest_.shards[shard].bytes);
    flip_bit(shard_path(shard), offset);
    EXPECT_THAT(verify(), ElementsAre(HasSubstr(shard_file_name(static_cast<std::int64_t>(shard))))) << offset;
    flip_bit(shard_path(shard), offset);
  }
  EXPECT_THAT(verify(), IsEmpty());
}

/// One random damage of one shard: what verify() says of it names the file, and the other shards can be read.
TEST_F(CacheDamageTest, RandomDamageIsNamedAndOtherShardsRead) {
  const std::int64_t cases = testing::campaign_cases(60);
  std::int64_t good = 0;
  for (std::int64_t i = 0; i < cases; ++i) {
    const RandomStream random(testing::campaign_seed(), RandomPurpose::kTest, 6, static_cast<std::uint64_t>(i));
    const std::size_t shard = 1 + 2 * random.below(0, 2);  // one that has rows before and behind it
    const CacheShard& listed = manifest_.shards[shard];
    const std::string before = read_text(files_, shard_path(shard));
    switch (random.below(1, 4)) {
      case 0:
        flip_bit(shard_path(shard), random.below(2, listed.bytes));
        break;
      case 1: {
        const CacheDataset& dataset = listed.datasets[random.below(2, listed.datasets.size())];
        std::vector<std::byte> other(dataset.layout.chunk_bytes(), std::byte{0x5a});
        overwrite(shard_path(shard), dataset.chunks[random.below(3, dataset.chunks.size())].offset, other);
        break;
      }
      case 2:
        files_.open(shard_path(shard), OpenMode::kReadWrite)->truncate(random.below(2, listed.bytes));
        break;
      default:
        files_.remove(shard_path(shard));
    }
    const std::vector<std::string> problems = verify();
    bool named = !problems.empty();
    for (const std::string& problem : problems)
      named = named && problem.find(shard_file_name(listed.index)) != std::string::npos;
    EXPECT_TRUE(named) << "case " << i;
    const ActivationCacheReader damaged(files_, folder_.path(), CacheOpen::kDamaged);
    read(damaged, 0, listed.first_row);
    read(damaged, listed.first_row + listed.rows, damaged.rows());
    good += named ? 1 : 0;
    files_.open(shard_path(shard), OpenMode::kCreate)->write(0, std::as_bytes(std::span(before)));
  }
  testing::tell_campaign("R6", "damaged shards: file, dataset, chunk and token rows named, other shards read", good,
                         cases);
}

TEST_F(CacheDamageTest, TruncatedFileLosesOnlyItsEnd) {
  files_.open(shard_path(), OpenMode::kReadWrite)->truncate(chunk_offset() + 10);
  EXPECT_ERROR(open(), DataError,
               AllOf(HasSubstr("shard-000001.h5"), HasSubstr(fmt::format("{} bytes", chunk_offset() + 10))));
  const ActivationCacheReader damaged(files_, folder_.path(), CacheOpen::kDamaged);
  read(damaged, 0, first_lost_row());
  read(damaged, manifest_.shards[2].first_row, damaged.rows());
  EXPECT_ERROR(read(damaged, first_lost_row(), first_lost_row() + 1), DataError, HasSubstr("shard-000001.h5"));
  const std::vector<std::string> problems = verify();
  EXPECT_GT(problems.size(), 5u);
  EXPECT_THAT(problems.front(), HasSubstr("were written"));
  for (const std::string& problem : problems) EXPECT_THAT(problem, HasSubstr("shard-000001.h5"));
}

TEST_F(CacheDamageTest, MissingFileLosesOnlyItself) {
  files_.remove(shard_path());
  const auto missing = AllOf(HasSubstr("shard-000001.h5: missing"), HasSubstr("token rows 14 to 41"));
  EXPECT_ERROR(open(), DataError, missing);
  EXPECT_THAT(verify(), ElementsAre(missing));
  const ActivationCacheReader damaged(files_, folder_.path(), CacheOpen::kDamaged);
  read(damaged, 0, 14);
  read(damaged, 42, damaged.rows());
}

TEST_F(CacheDamageTest, MissingManifestIsMissingInput) {
  files_.remove(folder_ / kManifestFile);
  EXPECT_ERROR(open(), MissingInputError, HasSubstr("manifest.json"));
}

TEST_F(CacheDamageTest, AbsentLayerIsNamed) {
  EXPECT_ERROR(ActivationCacheReader(files_, folder_.path()).layer_index(1), DataError, HasSubstr("layer 1 is not in"));
}

TEST_F(CacheDamageTest, RowsThatAreNotFiniteAreNamed) {
  // Damage done before the checksums were taken: they agree, the numbers do not.
  const bfloat16 nan(std::numeric_limits<float>::quiet_NaN());
  const std::int64_t row = 1;
  overwrite(shard_path(), chunk_offset() + static_cast<std::uint64_t>(row) * 18, std::as_bytes(std::span(&nan, 1)));
  const auto file = files_.open(shard_path(), OpenMode::kRead);
  const auto crc_of = [&](std::uint64_t offset, std::uint64_t size) {
    std::vector<std::byte> bytes(size);
    file->read(offset, bytes);
    return crc32c(bytes);
  };
  put_manifest(changed_manifest([&](json& whole) {
    json& shard = whole["shards"][kDamagedShard];
    shard["crc32c"] = crc_of(0, file->size());
    json& dataset = shard["datasets"][dataset_index(manifest_.format, 1, LayerColumn::kDelta)];
    dataset["chunk_crc32c"][kDamagedChunk] = crc_of(chunk_offset(), dataset["chunk_bytes"]);
  }));
  EXPECT_THAT(verify(), ElementsAre(AllOf(HasSubstr("shard-000001.h5: layers/2/mlp_delta chunk 2"),
                                          HasSubstr("1 rows hold numbers that are not finite"),
                                          HasSubstr(fmt::format("token row {}", first_lost_row() + row)))));
}

TEST_F(CacheDamageTest, ManifestThatLiesIsRefused) {
  const auto refused = [&](const std::function<void(json&)>& change, const std::string& words) {
    EXPECT_ERROR(parse_manifest(changed_manifest(change), "manifest.json"), DataError,
                 AllOf(HasSubstr("manifest.json"), HasSubstr(words)));
  };
  const auto dataset = [](json& whole) -> json& { return whole["shards"][1]["datasets"][1]; };
  refused([](json& m) { m["schema_version"] = 2; }, "schema version 2");
  refused([](json& m) { m["kind"] = "other"; }, "kind");
  refused([](json& m) { m.erase("provenance"); }, "provenance");
  refused([](json& m) { m["provenance"]["base"] = 3; }, "base");
  refused([](json& m) { m["rows"] = 1; }, "rows");
  refused([](json& m) { m["format"]["width"] = 8; }, "shape");
  refused([](json& m) { m["format"]["width"] = -8; }, "width");
  refused([](json& m) { m["format"]["width"] = 1e30; }, "width");
  refused([](json& m) { m["format"]["width"] = std::numeric_limits<std::int64_t>::max(); }, "width");
  refused([](json& m) { m["format"]["row_dtype"] = "float32"; }, "chunk_rows");
  refused([](json& m) { m["format"]["row_dtype"] = "complex"; }, "complex");
  refused([](json& m) { m["format"]["layers"] = {2, 0}; }, "layers");
  refused([](json& m) { m["format"]["layers"] = {0}; }, "datasets");
  refused([](json& m) { m["layers"].erase(1); }, "layers");
  refused([](json& m) { m["layers"][0]["layer"] = 1; }, "layer");
  refused([](json& m) { m["layers"][0]["scale_square"] = -1.0; }, "scale_square");
  refused([](json& m) { m["layers"][0]["scale_square"] = nullptr; }, "scale_square");
  refused([](json& m) { m["shards"].erase(0); }, "file");
  refused([](json& m) { m["shards"][1]["file"] = "../../etc/passwd"; }, "file");
  refused([](json& m) { m["shards"][1]["bytes"] = -1; }, "bytes");
  refused([](json& m) { m["shards"][1]["bytes"] = 100; }, "chunk_offsets");
  refused([](json& m) { m["shards"][1]["rows"] = 27; }, "shape");
  refused([](json& m) { m["shards"][1]["rows"] = std::int64_t{1} << 39; }, "expected 549755813888, found 28");
  refused([](json& m) { m["shards"][1]["rows"] = std::numeric_limits<std::uint64_t>::max(); }, "rows");
  refused([](json& m) { m["shards"][1]["first_sequence"] = 2; }, "first_sequence");
  refused([](json& m) { m["shards"][1]["last_sequence"] = 6; }, "last_sequence");
  refused([&](json& m) { dataset(m)["name"] = "layers/0/mlp_in"; }, "layers/0/mlp_in");
  refused([&](json& m) { dataset(m)["dtype"] = "int8"; }, "bfloat16");
  refused([&](json& m) { dataset(m)["shape"] = {28, 9, 1}; }, "shape");
  refused([&](json& m) { dataset(m)["chunk_bytes"] = 0; }, "chunk_bytes");
  refused([&](json& m) { dataset(m)["chunk_offsets"].erase(0); }, "offsets");
  refused([&](json& m) { dataset(m)["chunk_crc32c"][0] = 1ll << 32; }, "chunk_crc32c");
  refused([&](json& m) { dataset(m)["chunk_offsets"][0] = std::numeric_limits<std::uint64_t>::max(); }, "offsets");
  refused([&](json& m) { dataset(m)["chunk_offsets"][0] = dataset(m)["chunk_offsets"][1]; }, "overlap");
}

TEST_F(CacheDamageTest, GarbageInTheManifestNeverCrashes) {
  const std::string text = read_text(files_, folder_ / kManifestFile);
  const RandomStream random(7, RandomPurpose::kTest, 0, 0);
  std::uint32_t draw = 0;
  for (int i = 0; i < 300; ++i) {
    std::string mutated = text;
    for (std::uint64_t changes = 1 + random.below(draw++, 3); changes > 0; --changes) {
      const std::size_t at = random.below(draw++, mutated.size());
      switch (random.below(draw++, 3)) {
        case 0:
          mutated[at] = static_cast<char>(random.below(draw++, 256));
          break;
        case 1:
          mutated.resize(at + 1);
          break;
        default:
          mutated.erase(at, 1 + random.below(draw++, 20));
      }
    }
    if (mutated == text) continue;
    EXPECT_ERROR(parse_manifest(mutated, "manifest.json"), DataError, HasSubstr("manifest.json"));
  }
}

/// Puts a hostile value somewhere in the document.
void mutate(json& value, const RandomStream& random, std::uint32_t& draw) {
  if (value.is_structured() && !value.empty() && random.below(draw++, 8) != 0) {
    auto child = value.begin();
    std::advance(child, static_cast<std::ptrdiff_t>(random.below(draw++, value.size())));
    mutate(*child, random, draw);
    return;
  }
  const json hostile[] = {nullptr,
                          -1,
                          0,
                          1,
                          1e300,
                          std::numeric_limits<std::int64_t>::min(),
                          std::int64_t{1} << 40,
                          std::numeric_limits<std::uint64_t>::max(),
                          "",
                          "\n",
                          json::array(),
                          json::object(),
                          true};
  value = hostile[random.below(draw++, std::size(hostile))];
}

TEST_F(CacheDamageTest, SignedGarbageNeverCrashesEither) {
  const RandomStream random(8, RandomPurpose::kTest, 0, 0);
  std::uint32_t draw = 0;
  int refused = 0;
  for (int i = 0; i < 400; ++i) {
    const std::string text = changed_manifest([&](json& whole) { mutate(whole, random, draw); });
    try {
      parse_manifest(text, "manifest.json");
      put_manifest(text);  // harmless so far as the manifest alone can tell
      verify();
    } catch (const DataError& error) {
      ++refused;
      EXPECT_THAT(std::string(error.what()), AllOf(HasSubstr("manifest.json"), Not(HasSubstr("\n"))));
    }
  }
  EXPECT_GT(refused, 200);
}

}  // namespace
}  // namespace tadapt
