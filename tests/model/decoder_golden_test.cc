// The decoder against what Hugging Face transformers computed with the same files
// (tests/golden/make_decoder_golden.py).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "data/safetensors.h"
#include "runtime/model/segments.h"

namespace tadapt {
namespace {

struct Case {
  std::string name;
  DType compute;
};

std::ostream& operator<<(std::ostream& out, const Case& printed) {
  return out << printed.name << " in " << name(printed.compute);
}

std::string shown(const ::testing::TestParamInfo<Case>& info) {
  return info.param.name + "_" + name(info.param.compute);
}

class DecoderGolden : public ::testing::TestWithParam<Case> {
 protected:
  std::filesystem::path directory() const {
    return std::filesystem::path(TADAPT_SOURCE_DIR) / "tests/golden/decoder" / GetParam().name;
  }

  /// float32: the largest error is within 1e-4 of the golden tensor's root mean square. bfloat16: operands of products
  /// have relative errors up to 2^-9, two a product, which add up like a random walk over the 7 chained products of
  /// every layer and that of the head; so the root mean square of the errors is held to it.
  void expect_near(const Tensor& found, const std::string& golden_name, int layers) const {
    const auto golden = golden_.tensor(golden_name).span<float>();
    const auto values = found.span<float>();
    ASSERT_EQ(values.size(), golden.size()) << golden_name;
    double squares = 0, error_squares = 0, worst = 0;
    for (std::size_t i = 0; i < golden.size(); ++i) {
      const double error = static_cast<double>(values[i]) - golden[i];
      squares += static_cast<double>(golden[i]) * golden[i];
      error_squares += error * error;
      worst = std::max(worst, std::abs(error));
    }
    const double scale = std::sqrt(squares / static_cast<double>(golden.size()));
    const double spread = std::sqrt(error_squares / static_cast<double>(golden.size()));
    const bool is_exact = GetParam().compute == DType::kFloat32;
    const double relative = (is_exact ? worst : spread) / scale;
    EXPECT_LE(relative, is_exact ? 1e-4 : std::sqrt(2.0 * (7.0 * layers + 1.0)) * 0x1p-9) << golden_name;
    largest_ = std::max(largest_, relative);
  }

  void TearDown() override { RecordProperty("largest_relative_error", fmt::format("{:.2e}", largest_)); }

  SafetensorsFile golden_{directory() / "golden.safetensors"};
  mutable double largest_ = 0;
};

TEST_P(DecoderGolden, ResidualsMlpInputsAndLogits) {
  Context context = Context::cpu(2);
  RealFileSystem files;
  const Decoder decoder = Decoder::load(context, files, directory(), GetParam().compute);
  const int layers = decoder.config().layers;
  TokenBatch batch;
  for (const auto& ids : nlohmann::json::parse(read_text(files, directory() / "sequences.json"))) {
    batch.append(ids.get<std::vector<std::int32_t>>());
  }
  ASSERT_GE(batch.sequences(), 2);

  const auto expect_all_near = [&](const std::string& what, const std::string& suffix, const Tensor& values) {
    for (int s = 0; s < batch.sequences(); ++s) {
      const auto row = [&](int i) { return batch.offsets[static_cast<std::size_t>(i)]; };
      expect_near(values.rows(row(s), row(s + 1)), fmt::format("{}.{}{}", what, s, suffix), layers);
    }
  };
  RunReads reads{.keep = {{0, layers}}, .observe = [&](const Reading& reading) {
                   const std::string layer = fmt::format(".{}", reading.layer);
                   const std::string next = fmt::format(".{}", reading.layer + 1);
                   if (reading.point == ReadPoint::kEmbeddings) expect_all_near("residual", ".0", reading.values);
                   if (reading.point == ReadPoint::kMlpIn) expect_all_near("mlp_in", layer, reading.values);
                   if (reading.point == ReadPoint::kBlockOut) expect_all_near("residual", next, reading.values);
                 }};
  const Segment whole{.splice = uniform_splice(layers, {}), .begin = 0, .end = layers};
  const ResidualStates states = SegmentRunner(context, decoder).run({&whole, 1}, batch, reads);
  const LogitsSource source{&decoder, states.at({0, layers})};
  for_each_logits_chunk(context, {&source, 1}, 1 << 30, [&](const LogitsChunk& chunk) {
    ASSERT_EQ(chunk.end - chunk.begin, batch.tokens());
    expect_all_near("logits", "", chunk.logits[0]);
  });
}

INSTANTIATE_TEST_SUITE_P(Qwen2, DecoderGolden, ::testing::ValuesIn([] {
                           std::vector<Case> cases;
                           for (const char* name :
                                {"mha_tied_f32", "gqa2_f16", "gqa7_sharded_bf16", "head_dim_tied_bf16"}) {
                             for (const DType compute : {DType::kFloat32, DType::kBFloat16})
                               cases.push_back({name, compute});
                           }
                           return cases;
                         }()),
                         shown);

}  // namespace
}  // namespace tadapt
