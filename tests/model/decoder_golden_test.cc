// The decoder against what Hugging Face transformers computed with the same files
// (tests/golden/make_decoder_golden.py).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "data/safetensors.h"
#include "runtime/model/segments.h"
#include "tests/support/devices.h"

namespace tadapt {
namespace {

struct Case {
  std::string name;
  DType compute;
  Device device;
};

std::ostream& operator<<(std::ostream& out, const Case& printed) {
  return out << printed.name << " in " << name(printed.compute) << " on " << name(printed.device);
}

std::string shown(const ::testing::TestParamInfo<Case>& info) {
  return info.param.name + "_" + name(info.param.compute) + "_" + name(info.param.device);
}

class DecoderGolden : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (GetParam().device == Device::kCuda && !testing::has_gpu()) GTEST_SKIP() << "no GPU here";
  }

  std::filesystem::path directory() const {
    return std::filesystem::path(TADAPT_SOURCE_DIR) / "tests/golden/decoder" / GetParam().name;
  }

  /// float32: the largest error is within the tolerance; bfloat16: the root mean square of the errors is.
  void expect_near(std::span<const float> values, const std::string& golden_name, int layers) const {
    const auto golden = golden_.tensor(golden_name).span<float>();
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
    EXPECT_LE(relative, testing::pass_tolerance(GetParam().device, GetParam().compute, layers)) << golden_name;
    largest_ = std::max(largest_, relative);
  }

  void TearDown() override { RecordProperty("largest_relative_error", fmt::format("{:.2e}", largest_)); }

  SafetensorsFile golden_{directory() / "golden.safetensors"};
  mutable double largest_ = 0;
};

TEST_P(DecoderGolden, ResidualsMlpInputsAndLogits) {
  Context context = testing::context_on(GetParam().device, 2);
  RealFileSystem files;
  const Decoder decoder = Decoder::load(context, files, directory(), GetParam().compute);
  const int layers = decoder.config().layers;
  TokenBatch batch;
  for (const auto& ids : nlohmann::json::parse(read_text(files, directory() / "sequences.json"))) {
    batch.append(ids.get<std::vector<std::int32_t>>());
  }
  ASSERT_GE(batch.sequences(), 2);

  const auto expect_all_near = [&](const std::string& what, const std::string& suffix, const Tensor& values) {
    const std::vector<float> numbers = on_host<float>(context, values);
    const auto width = static_cast<std::size_t>(values.size(1));
    for (int s = 0; s < batch.sequences(); ++s) {
      const auto at = [&](int i) {
        return static_cast<std::size_t>(batch.offsets[static_cast<std::size_t>(i)]) * width;
      };
      expect_near(std::span(numbers).subspan(at(s), at(s + 1) - at(s)), fmt::format("{}.{}{}", what, s, suffix),
                  layers);
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
                               for (const Device device : {Device::kCpu, Device::kCuda})
                                 cases.push_back({name, compute, device});
                           }
                           return cases;
                         }()),
                         shown);

}  // namespace
}  // namespace tadapt
