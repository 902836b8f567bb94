// Exports: they read back equal, fit their models, name damage, and appear whole or not at all.
#include "runtime/export/export.h"

#include <cmath>
#include <fstream>

#include "data/model_files.h"
#include "runtime/bundle/load_export.h"
#include "runtime/export/package_exports.h"
#include "runtime/export/staged_directory.h"
#include "tests/eval/random_bundle.h"
#include "tests/support/errors.h"
#include "tests/support/faulty_file_system.h"
#include "tests/support/temporary_directory.h"

namespace tadapt {
namespace {
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
namespace fs = std::filesystem;

class ExportTest : public ::testing::Test {
 protected:
  ExportTest() {
    testing::write_tiny_model(folder_ / "target", {.seed = 1});
    testing::write_tiny_model(folder_ / "base", {.seed = 2});
    adapters_.base_fingerprint = model_fingerprint(folder_ / "base");
    adapters_.target_fingerprint = model_fingerprint(folder_ / "target");
    adapters_.step = 7;
  }

  void export_both() {
    export_adapters(files_, adapters_, folder_ / "adapters");
    export_authors(files_, adapters_, folder_ / "base", folder_ / "target", folder_ / "authors");
  }
  AdapterBundle load(const std::string& name) {
    return load_adapters(files_, folder_ / name, [](const std::string&) {});
  }
  void expect_loads_equal(const std::string& name) {
    const AdapterBundle found = load(name);
    ASSERT_EQ(found.layers.size(), adapters_.layers.size()) << name;
    for (std::size_t i = 0; i < found.layers.size(); ++i) {
      EXPECT_EQ(found.layers[i].layer, adapters_.layers[i].layer);
      EXPECT_TRUE(std::ranges::equal(found.layers[i].store->master(0).span<float>(),
                                     adapters_.layers[i].store->master(0).span<float>()));
    }
  }
  void change_a_byte(const fs::path& file, std::uint64_t offset, char bits) {
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekg(static_cast<std::streamoff>(offset));
    const char changed = static_cast<char>(stream.get() ^ bits);
    stream.seekp(static_cast<std::streamoff>(offset));
    stream.put(changed);
  }

  RealFileSystem files_;
  testing::TemporaryDirectory folder_;
  AdapterBundle adapters_ = testing::random_bundle({0, 2}, {24, 12}, 0.3f);
};

TEST(StagedDirectoryTest, IsThereWholeWhenThePowerGoes) {
  testing::FaultyFileSystem files;
  StagedDirectory staged(files, "/out");
  {
    const auto file = files.open(staged.path() / "part", OpenMode::kCreate);
    file->write(0, std::as_bytes(std::span("content", 7)));
    file->sync();
  }
  files.sync_directory("/");
  staged.publish();
  files.lose_power(testing::Unsynced::kLost);
  EXPECT_THAT(files.list("/"), ElementsAre("out"));
  EXPECT_EQ(read_text(files, "/out/part"), "content");
}

TEST_F(ExportTest, ReadsBackEqualWithStepAndModels) {
  export_both();
  for (const char* name : {"adapters", "authors"}) {
    expect_loads_equal(name);
    EXPECT_EQ(load(name).step, 7);
    EXPECT_EQ(load(name).target_fingerprint, adapters_.target_fingerprint);
    EXPECT_THAT(verify_export(files_, folder_ / name), IsEmpty());
  }
  EXPECT_ERROR(load(""), MissingInputError, HasSubstr("no adapters"));
}

TEST_F(ExportTest, ALayerOfZerosInAForeignDirectoryWasNotTrained) {
  export_both();
  fs::remove(folder_ / "authors/adapters.json");
  fs::remove(folder_ / "authors/CHECKSUMS");
  expect_loads_equal("authors");
}

TEST_F(ExportTest, HybridTensorsAreTheBasesInTrainedLayersOnly) {
  export_both();
  const ModelFiles base(folder_ / "base"), target(folder_ / "target"), made(folder_ / "authors");
  const auto equal = [&](const ModelFiles& from, const std::string& name) {
    return std::ranges::equal(from.tensor(name).span<float>(), made.tensor(name).span<float>());
  };
  for (const char* product : {"gate_proj", "up_proj", "down_proj"}) {
    EXPECT_TRUE(equal(base, fmt::format("model.layers.0.mlp.{}.weight", product)));
    EXPECT_TRUE(equal(target, fmt::format("model.layers.1.mlp.{}.weight", product)));
    EXPECT_TRUE(equal(base, fmt::format("model.layers.2.mlp.{}.weight", product)));
  }
  EXPECT_TRUE(equal(target, "model.layers.0.self_attn.q_proj.weight"));
}

TEST_F(ExportTest, OtherModelsAreRefused) {
  const auto attempt = [&](const char* base, const char* target) {
    export_authors(files_, adapters_, folder_ / base, folder_ / target, folder_ / "out");
  };
  EXPECT_ERROR(attempt("target", "base"), ConfigError, HasSubstr("trained for the base model"));
  testing::write_tiny_model(folder_ / "wide", {.width = 32, .seed = 1});
  EXPECT_ERROR(attempt("base", "wide"), ConfigError, HasSubstr("hidden_size"));
  adapters_.base_fingerprint = adapters_.target_fingerprint = "";
  EXPECT_ERROR(attempt("wide", "wide"), ConfigError, HasSubstr("layer 0 of width 24 does not fit"));
  EXPECT_FALSE(fs::exists(folder_ / "out"));
}

TEST_F(ExportTest, DamageIsNamed) {
  export_both();
  const fs::path file = folder_ / "authors/model.safetensors";
  change_a_byte(file, fs::file_size(file) - 1, 1);
  EXPECT_THAT(verify_export(files_, folder_ / "authors"), ElementsAre(HasSubstr("model.safetensors: tensor")));
  change_a_byte(folder_ / "authors/config.json", 20, 1);
  EXPECT_THAT(verify_export(files_, folder_ / "authors"), ::testing::SizeIs(2));
  const fs::path weights = folder_ / "adapters/adapters.safetensors";
  change_a_byte(weights, fs::file_size(weights) - 1, 1);
  EXPECT_ERROR(load("adapters"), DataError, HasSubstr("is damaged"));
  change_a_byte(folder_ / "authors/adapters.json", 30, 1);
  EXPECT_ERROR(load("authors"), DataError, HasSubstr("adapters.json"));
}

TEST_F(ExportTest, NumbersThatAreNotFiniteAreNamed) {
  adapters_.layers[1].store->master_views(0)["W_dec"].span<float>()[5] = NAN;
  export_both();
  for (const char* name : {"adapters", "authors"})
    EXPECT_ERROR(load(name), NonFiniteError, HasSubstr("layer 2: W_dec: 1 of 288 numbers"));
}

TEST_F(ExportTest, AppearsWholeOrNotAtAll) {
  files_.make_directories(folder_ / "empty");
  export_adapters(files_, adapters_, folder_ / "empty/");
  EXPECT_ERROR(export_adapters(files_, adapters_, folder_ / "empty"), WriteError, HasSubstr("already there"));
  write_atomically(files_, folder_ / "file", "");
  EXPECT_ERROR(export_adapters(files_, adapters_, folder_ / "file"), WriteError, HasSubstr("already there"));

  const fs::path tensors = folder_ / "base/model.safetensors";
  fs::rename(tensors, folder_ / "aside");
  adapters_.base_fingerprint = "";
  EXPECT_ERROR(export_authors(files_, adapters_, folder_ / "base", folder_ / "target", folder_ / "out"),
               MissingInputError, HasSubstr("base"));
  fs::rename(folder_ / "aside", tensors);
  EXPECT_FALSE(fs::exists(folder_ / "out.unfinished"));
  export_authors(files_, adapters_, folder_ / "base", folder_ / "target", folder_ / "out");
  EXPECT_THAT(verify_export(files_, folder_ / "out"), IsEmpty());
}

/// A safetensors file of an export, by name.
std::vector<float> numbers(const fs::path& file, const std::string& name, Shape shape) {
  const SafetensorsFile tensors(file);
  const Tensor tensor = tensors.tensor(name);
  EXPECT_EQ(tensor.shape(), shape) << name;
  return {tensor.span<float>().begin(), tensor.span<float>().end()};
}

TEST_F(ExportTest, PackagesFindTheWeightsWhereTheyLook) {
  const PackageExport how{.model_name = "toy \"1\"", .k = 5};
  export_circuit_tracer(files_, adapters_, how, folder_ / "ct");
  export_sae_lens(files_, adapters_, how, folder_ / "sl");
  export_sparsify(files_, adapters_, how, folder_ / "sp");
  const ParameterTensors masters = adapters_.layers[1].store->master_views(0);
  const auto own = [&](const char* name) {
    return std::vector<float>(masters[name].span<float>().begin(), masters[name].span<float>().end());
  };
  EXPECT_EQ(numbers(folder_ / "ct/layer_2.safetensors", "W_enc", {12, 24}), own("W_enc"));
  EXPECT_EQ(numbers(folder_ / "sp/layers.2.mlp/sae.safetensors", "encoder.weight", {12, 24}), own("W_enc"));
  EXPECT_EQ(numbers(folder_ / "sl/layer_2/sae_weights.safetensors", "W_dec", {12, 24}), own("W_dec"));
  const std::vector<float> encoder = numbers(folder_ / "sl/layer_2/sae_weights.safetensors", "W_enc", {24, 12});
  for (std::size_t d = 0; d < 24; ++d)
    for (std::size_t i = 0; i < 12; ++i) ASSERT_EQ(encoder[d * 12 + i], own("W_enc")[i * 24 + d]);
  EXPECT_THAT(numbers(folder_ / "ct/layer_1.safetensors", "W_dec", {12, 24}), ::testing::Each(0.0f));
  EXPECT_FALSE(fs::exists(folder_ / "sl/layer_1"));
  EXPECT_THAT(read_text(files_, folder_ / "ct/config.yaml"), HasSubstr("model_name: \"toy \\\"1\\\"\""));
  EXPECT_THAT(read_text(files_, folder_ / "sp/layers.2.mlp/cfg.json"), HasSubstr("\"k\": 5"));
  for (const char* name : {"ct", "sl", "sp"}) EXPECT_THAT(verify_export(files_, folder_ / name), IsEmpty());
}

}  // namespace
}  // namespace tadapt
