// Segments: joining runs, keeping states, the order of readings, logits in chunks.
#include "runtime/model/segments.h"

#include "tests/support/devices.h"
#include "tests/support/errors.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/tiny_models.h"

namespace tadapt {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::random_ids;
using testing::TinyModel;
using testing::write_tiny_model;

class SegmentsTest : public testing::PerDevice {
 protected:
  void SetUp() override {
    PerDevice::SetUp();
    if (IsSkipped()) return;
    context_.emplace(testing::context_on(GetParam()));
    decoder_.emplace(load(*context_, directory_.path()));
  }
  static Decoder load(Context& context, const std::filesystem::path& directory) {
    RealFileSystem files;
    write_tiny_model(directory / "target", {.seed = 1});
    write_tiny_model(directory / "base", {.seed = 2});
    return Decoder::load_pair(context, files, directory / "target", directory / "base", DType::kFloat32);
  }
  static TokenBatch two_sequences() {
    TokenBatch batch;
    batch.append(random_ids(9, 50, 1));
    batch.append(random_ids(14, 50, 2));
    return batch;
  }
  ResidualStates run(std::span<const Segment> segments, const RunReads& reads) {
    return SegmentRunner(*context_, *decoder_).run(segments, batch_, reads);
  }
  std::vector<float> numbers(const Tensor& tensor) { return on_host<float>(*context_, tensor); }
  void expect_same(const Tensor& a, const Tensor& b) {
    EXPECT_EQ(a.shape(), b.shape());
    EXPECT_EQ(numbers(a), numbers(b));
  }

  testing::TemporaryDirectory directory_;
  std::optional<Context> context_;
  std::optional<Decoder> decoder_;
  const TokenBatch batch_ = two_sequences();
  const Splice target_ = uniform_splice(3, {});
  const Splice hybrid_ = uniform_splice(3, {.mlp = MlpSource::kBase});
};

INSTANTIATE_TEST_SUITE_P(Device, SegmentsTest, testing::kEachDevice, testing::device_name);

TEST_P(SegmentsTest, ARunMayBeCutAtAnyLayer) {
  for (int cut = 0; cut <= 3; ++cut) {
    const std::vector<Segment> segments{{.splice = target_, .begin = 0, .end = 3},
                                        {.splice = target_, .begin = 0, .end = cut},
                                        {.splice = target_, .begin = cut, .end = 3, .source = 1}};
    const ResidualStates states = run(segments, {.keep = {{0, 3}, {2, 3}, {0, cut}, {1, cut}}, .observe = {}});
    expect_same(states.at({0, 3}), states.at({2, 3}));
    expect_same(states.at({0, cut}), states.at({1, cut}));
  }
}

TEST_P(SegmentsTest, SegmentsStartFromTheStatesOfEarlierOnes) {
  Splice mixed = hybrid_;
  mixed[2] = target_[2];
  const std::vector<Segment> segments{{.splice = target_, .begin = 0, .end = 3},
                                      {.splice = hybrid_, .begin = 0, .end = 3},
                                      {.splice = target_, .begin = 2, .end = 3, .source = 1},
                                      {.splice = mixed, .begin = 0, .end = 3}};
  const ResidualStates states = run(segments, {.keep = {{2, 3}, {3, 3}, {1, 3}}, .observe = {}});
  expect_same(states.at({2, 3}), states.at({3, 3}));
  EXPECT_NE(numbers(states.at({1, 3})), numbers(states.at({3, 3})));
  EXPECT_ERROR(states.at({1, 2}), ShapeError, HasSubstr("not kept"));
}

TEST_P(SegmentsTest, ReadingsComeInOrderAndFitTogether) {
  std::vector<std::string> order;
  std::vector<float> residual;
  const auto observe = [&](const Reading& reading) {
    order.push_back(fmt::format("{}:{}:{}", reading.segment, reading.layer, static_cast<int>(reading.point)));
    EXPECT_EQ(reading.values.shape(), Shape({23, 24}));
    if (reading.point == ReadPoint::kBlockOut) residual = numbers(reading.values);
  };
  const Segment segment{.splice = hybrid_, .begin = 0, .end = 2};
  const ResidualStates states = run({&segment, 1}, {.keep = {{0, 2}}, .observe = observe});
  EXPECT_THAT(order, ElementsAre("0:0:0", "0:0:1", "0:0:2", "0:0:3", "0:1:1", "0:1:2", "0:1:3"));
  EXPECT_EQ(numbers(states.at({0, 2})), residual);
}

TEST_P(SegmentsTest, LogitsOfAllSourcesChunkByChunk) {
  const std::vector<Segment> segments{{.splice = target_, .begin = 0, .end = 3},
                                      {.splice = hybrid_, .begin = 0, .end = 3}};
  const ResidualStates states = run(segments, {.keep = {{0, 3}, {1, 3}}, .observe = {}});
  const std::vector<LogitsSource> sources{{&*decoder_, states.at({0, 3})}, {&*decoder_, states.at({1, 3})}};
  const auto collect = [&](std::size_t budget, std::int64_t expected_rows) {
    std::vector<std::vector<float>> all(2);
    std::int64_t next = 0;
    for_each_logits_chunk(*context_, sources, budget, [&](const LogitsChunk& chunk) {
      EXPECT_EQ(chunk.begin, next);
      EXPECT_LE(chunk.end - chunk.begin, expected_rows);
      next = chunk.end;
      for (std::size_t i = 0; i < 2; ++i) {
        const std::vector<float> values = numbers(chunk.logits[i]);
        EXPECT_EQ(values.size(), static_cast<std::size_t>((chunk.end - chunk.begin) * 50));
        EXPECT_EQ(chunk.final_norms[i].size(1), 24);
        all[i].insert(all[i].end(), values.begin(), values.end());
      }
    });
    EXPECT_EQ(next, 23);
    return all;
  };
  const std::size_t row_bytes = 2 * (24 + 50) * sizeof(float);
  const auto whole = collect(1 << 30, 23);
  EXPECT_NE(whole[0], whole[1]);
  for (const auto& [budget, rows] : {std::pair<std::size_t, std::int64_t>{0, 1}, {5 * row_bytes, 5}}) {
    const auto parts = collect(budget, rows);
    for (std::size_t i = 0; i < 2; ++i) EXPECT_TRUE(testing::agree(GetParam(), parts[i], whole[i], 1e-4));
  }
}

TEST_P(SegmentsTest, AnEmptyBatchRuns) {
  const Segment segment{.splice = target_, .begin = 0, .end = 3};
  const ResidualStates states =
      SegmentRunner(*context_, *decoder_).run({&segment, 1}, TokenBatch(), {.keep = {{0, 3}}, .observe = {}});
  EXPECT_EQ(states.at({0, 3}).size(0), 0);
  const LogitsSource source{&*decoder_, states.at({0, 3})};
  for_each_logits_chunk(*context_, {&source, 1}, 1024, [](const LogitsChunk&) { ADD_FAILURE() << "no rows"; });
}

TEST_P(SegmentsTest, IllFormedGraphsAreRefused) {
  const auto refused = [&](std::vector<Segment> segments, const char* words) {
    EXPECT_ERROR(run(segments, {}), ShapeError, HasSubstr(words));
  };
  refused({{.splice = target_, .begin = 1, .end = 3}}, "reads tokens");
  refused({{.splice = target_, .begin = 0, .end = 4}}, "layers [0, 4)");
  refused({{.splice = target_, .begin = 0, .end = 3, .source = 0}}, "source 0");
  refused({{.splice = uniform_splice(2, {}), .begin = 0, .end = 2}}, "splice of 2 layers");
  refused({{.splice = target_, .begin = 0, .end = 1}, {.splice = target_, .begin = 2, .end = 3, .source = 0}},
          "states 0 to 1");
  const Segment segment{.splice = target_, .begin = 0, .end = 2};
  EXPECT_ERROR(run({&segment, 1}, {.keep = {{0, 3}}, .observe = {}}), ShapeError, HasSubstr("state 3 of segment 0"));
}

}  // namespace
}  // namespace tadapt
