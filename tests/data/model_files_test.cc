// Model directories as they are found: one file, shards, hub snapshots, broken indices; and their fingerprint.
#include "data/model_files.h"

#include <filesystem>

#include "tests/support/errors.h"
#include "tests/support/temporary_directory.h"

namespace tadapt {
namespace {
namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::TemporaryDirectory;

class ModelFilesTest : public ::testing::Test {
 protected:
  ModelFilesTest() { put("config.json", "{}"); }

  void put(const std::string& name, std::string_view text) {
    const auto file = files_.open(folder_ / name, OpenMode::kCreate);
    file->write(0, std::as_bytes(std::span(text)));
  }
  void put_tensors(const std::string& name, std::initializer_list<std::pair<const char*, std::span<float>>> tensors) {
    NamedTensors named;
    for (const auto& [key, values] : tensors) {
      named[key] = Tensor::of(values, {static_cast<std::int64_t>(values.size())});
    }
    write_safetensors(files_, folder_ / name, named);
  }
  void put_index(const std::string& weight_map) {
    put("model.safetensors.index.json", R"({"metadata":{"total_size":1},"weight_map":)" + weight_map + "}");
  }

  RealFileSystem files_;
  TemporaryDirectory folder_;
  std::vector<float> one_{1.0f}, two_{2.0f, 2.5f}, many_ = std::vector<float>(10'000, 3.0f);
};

TEST_F(ModelFilesTest, SingleFile) {
  put_tensors("model.safetensors", {{"a", one_}, {"b", two_}});
  const ModelFiles model(folder_.path());
  EXPECT_THAT(model.names(), ElementsAre("a", "b"));
  EXPECT_TRUE(model.contains("a"));
  EXPECT_FALSE(model.contains("c"));
  EXPECT_THAT(model.tensor("b").span<float>(), ElementsAre(2.0f, 2.5f));
  EXPECT_ERROR(model.tensor("c"), DataError, AllOf(HasSubstr(folder_.path().string()), HasSubstr("no tensor \"c\"")));
}

TEST_F(ModelFilesTest, Shards) {
  put_tensors("model-00001-of-00002.safetensors", {{"a", one_}});
  put_tensors("model-00002-of-00002.safetensors", {{"b", two_}});
  put_index(R"({"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"})");
  const ModelFiles model(folder_.path());
  EXPECT_THAT(model.names(), ElementsAre("a", "b"));
  EXPECT_THAT(model.tensor("a").span<float>(), ElementsAre(1.0f));
  EXPECT_EQ(model.file_of("b").path().filename(), "model-00002-of-00002.safetensors");
}

TEST_F(ModelFilesTest, SnapshotOfSymbolicLinks) {
  fs::create_directories(folder_ / "blobs");
  fs::create_directories(folder_ / "snapshots/0123");
  put_tensors("blobs/abc", {{"a", one_}});
  put("blobs/def", R"({"weight_map":{"a":"model-1.safetensors"}})");
  fs::create_symlink("../../blobs/abc", folder_ / "snapshots/0123/model-1.safetensors");
  fs::create_symlink("../../blobs/def", folder_ / "snapshots/0123/model.safetensors.index.json");
  EXPECT_THAT(ModelFiles(folder_ / "snapshots/0123").tensor("a").span<float>(), ElementsAre(1.0f));
}

TEST_F(ModelFilesTest, WhatIsMissingIsNamed) {
  EXPECT_ERROR(ModelFiles(folder_ / "none"), MissingInputError, AllOf(HasSubstr("none"), HasSubstr("no such")));
  EXPECT_ERROR(ModelFiles(folder_.path()), MissingInputError,
               AllOf(HasSubstr(folder_.path().string()), HasSubstr("neither model.safetensors")));
  put_index(R"({"a":"model-1.safetensors"})");
  EXPECT_ERROR(ModelFiles(folder_.path()), MissingInputError, HasSubstr("model-1.safetensors"));
}

TEST_F(ModelFilesTest, ADanglingLinkIsMissing) {
  fs::create_symlink("gone", folder_ / "model.safetensors");
  EXPECT_ERROR(ModelFiles(folder_.path()), MissingInputError, HasSubstr(folder_.path().string()));
}

TEST_F(ModelFilesTest, AnIndexMayNotPointOutside) {
  put_tensors("outside.safetensors", {{"a", one_}});
  fs::create_directories(folder_ / "model");
  const std::string absolute = (folder_ / "outside.safetensors").string();
  for (const std::string& shard :
       {std::string("../outside.safetensors"), absolute, std::string("x/../../outside.safetensors"), std::string(""),
        std::string("a\\u0000b")}) {
    put("model/model.safetensors.index.json", R"({"weight_map":{"a":")" + shard + R"("}})");
    EXPECT_ERROR(ModelFiles(folder_ / "model"), DataError, AllOf(HasSubstr("\"a\""), HasSubstr("not inside")));
  }
}

TEST_F(ModelFilesTest, BrokenIndices) {
  put_tensors("m.safetensors", {{"a", one_}});
  put_index(R"({"b":"m.safetensors"})");
  EXPECT_ERROR(ModelFiles(folder_.path()), DataError, HasSubstr("tensor \"b\" is not in \"m.safetensors\""));
  put_index(R"({"a":1})");
  EXPECT_ERROR(ModelFiles(folder_.path()), DataError, HasSubstr("\"a\" is not mapped to a file name"));
  put_index(R"({"a":"m.safetensors","a":"m.safetensors"})");
  EXPECT_ERROR(ModelFiles(folder_.path()), DataError, HasSubstr("\"a\" twice"));
  put_index("[]");
  EXPECT_ERROR(ModelFiles(folder_.path()), DataError, HasSubstr("no weight_map"));
  put("model.safetensors.index.json", "[");
  EXPECT_ERROR(ModelFiles(folder_.path()), DataError, HasSubstr("index.json: not valid JSON"));
}

TEST_F(ModelFilesTest, FingerprintFollowsContentNotFiles) {
  put_tensors("model.safetensors", {{"a", many_}, {"b", two_}});
  const std::string single = model_fingerprint(folder_.path());
  EXPECT_EQ(single.size(), 32u);
  EXPECT_EQ(single, model_fingerprint(folder_.path()));

  fs::remove(folder_ / "model.safetensors");
  put_tensors("m1", {{"b", two_}});
  put_tensors("m2", {{"a", many_}});
  put_index(R"({"a":"m2","b":"m1"})");
  EXPECT_EQ(model_fingerprint(folder_.path()), single);

  const auto with = [&](std::size_t changed) {
    std::vector<float> values = many_;
    values[changed] = 4.0f;
    put_tensors("m2", {{"a", values}});
    return model_fingerprint(folder_.path());
  };
  EXPECT_NE(with(0), single);
  EXPECT_NE(with(many_.size() - 1), single);
  EXPECT_NE(with(0), with(1));
  put_tensors("m2", {{"a", many_}});
  put("config.json", "{ }");
  EXPECT_NE(model_fingerprint(folder_.path()), single);
}

TEST_F(ModelFilesTest, FingerprintSeesNamesAndShapes) {
  put_tensors("model.safetensors", {{"a", two_}});
  const std::string before = model_fingerprint(folder_.path());
  put_tensors("model.safetensors", {{"A", two_}});
  EXPECT_NE(model_fingerprint(folder_.path()), before);
  write_safetensors(files_, folder_ / "model.safetensors", {{"a", Tensor::of(std::span(two_), {1, 2})}});
  EXPECT_NE(model_fingerprint(folder_.path()), before);
  fs::remove(folder_ / "config.json");
  EXPECT_ERROR(model_fingerprint(folder_.path()), MissingInputError, HasSubstr("config.json"));
}

}  // namespace
}  // namespace tadapt
