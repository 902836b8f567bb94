// Generation: cached passes against whole sequences, and responses that depend on nothing but their own request.
#include "runtime/model/generation.h"

#include <map>
#include <numeric>

#include "kernels/pointwise.h"
#include "runtime/model/segments.h"
#include "tests/support/devices.h"
#include "tests/support/errors.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/tiny_models.h"

namespace tadapt {
namespace {

using ::testing::HasSubstr;
using testing::random_ids;

/// Adds its input to the MLP's output: something that is not nothing.
class EchoBranch : public AdapterBranch {
 public:
  void add_output(Context& context, int, const TokenBatch&, const Tensor& mlp_in, const Tensor& mlp_out) override {
    add_to(context, mlp_in, mlp_out);
  }
};

class GenerationTest : public testing::PerDevice {
 protected:
  static constexpr int kLayers = 3;
  static constexpr std::int64_t kPositions = 150;  // three pages

  void SetUp() override {
    PerDevice::SetUp();
    if (IsSkipped()) return;
    context_.emplace(testing::context_on(GetParam(), 2));
    RealFileSystem files;
    for (const std::uint64_t seed : {1, 2})
      testing::write_tiny_model(directory_ / std::to_string(seed), {.max_positions = kPositions, .seed = seed});
    decoder_.emplace(Decoder::load_pair(*context_, files, directory_ / "1", directory_ / "2", DType::kFloat32));
  }

  GenerationModel model() { return {*decoder_, splice_}; }

  static std::vector<GenerationRequest> requests(std::size_t count) {
    std::vector<GenerationRequest> made;
    for (std::size_t i = 0; i < count; ++i)
      made.push_back({.prompt = random_ids(static_cast<std::int64_t>(1 + 9 * i % 67), 50, i), .sample = i});
    return made;
  }

  std::vector<Generated> respond(std::span<const GenerationRequest> asked, const GenerationOptions& options) {
    std::vector<Generated> responses(asked.size());
    std::vector<std::vector<std::int32_t>> heard(asked.size());
    const GenerationListener listener{
        .token = [&](std::size_t request, std::int32_t token) { heard[request].push_back(token); },
        .done = [&](std::size_t request, Generated response) { responses[request] = std::move(response); },
        .step = {}};
    generate(*context_, model(), asked, options, listener);
    for (std::size_t i = 0; i < asked.size(); ++i) EXPECT_EQ(heard[i], responses[i].ids) << "each token once";
    return responses;
  }

  static std::vector<std::vector<std::int32_t>> ids(const std::vector<Generated>& responses) {
    std::vector<std::vector<std::int32_t>> all;
    for (const Generated& response : responses) all.push_back(response.ids);
    return all;
  }

  /// The last residual states of a packed batch.
  std::vector<float> states(const TokenBatch& batch, const CachedBatch* cached) {
    const Segment segment{.splice = splice_, .begin = 0, .end = kLayers, .cached = cached};
    SegmentRunner runner(*context_, *decoder_);
    return on_host<float>(*context_,
                          runner.run({&segment, 1}, batch, {.keep = {{0, kLayers}}, .observe = {}}).at({0, kLayers}));
  }

  std::int32_t first_choice(const std::vector<std::int32_t>& sequence) {
    TokenBatch batch;
    batch.append(sequence);
    const Segment segment{.splice = splice_, .begin = 0, .end = kLayers};
    SegmentRunner runner(*context_, *decoder_);
    const ResidualStates kept = runner.run({&segment, 1}, batch, {.keep = {{0, kLayers}}, .observe = {}});
    const LogitsSource source{&*decoder_, kept.at({0, kLayers}).rows(batch.tokens() - 1, batch.tokens())};
    std::vector<float> logits;
    for_each_logits_chunk(*context_, {&source, 1}, 1 << 20,
                          [&](const LogitsChunk& chunk) { logits = on_host<float>(*context_, chunk.logits[0]); });
    return static_cast<std::int32_t>(std::ranges::max_element(logits) - logits.begin());
  }

  testing::TemporaryDirectory directory_;
  std::optional<Context> context_;
  std::optional<Decoder> decoder_;
  EchoBranch branch_;
  Splice splice_{{.mlp = MlpSource::kTarget, .adapter = nullptr},
                 {.mlp = MlpSource::kBase, .adapter = &branch_},
                 {.mlp = MlpSource::kBase, .adapter = nullptr}};
};

INSTANTIATE_TEST_SUITE_P(Device, GenerationTest, testing::kEachDevice, testing::device_name);

TEST_P(GenerationTest, CachedPassesGiveTheRowsOfWholeSequences) {
  const std::vector<std::vector<std::int32_t>> sequences{random_ids(131, 50, 1), random_ids(70, 50, 2)};
  const std::vector<std::size_t> begun{126, 60};
  TokenBatch whole, beginnings;
  for (std::size_t b = 0; b < 2; ++b) {
    whole.append(sequences[b]);
    beginnings.append(std::span(sequences[b]).first(begun[b]));
  }
  const std::vector<float> expected = states(whole, nullptr);

  const KeyValueCache cache(*context_, decoder_->config(), DType::kFloat32, 6);
  std::vector<std::int32_t> tables{4, 0, 3, 1, 5, 0};
  const auto slot = [&](std::size_t b, std::size_t position) {
    return tables[3 * b + position / 64] * 64 + static_cast<std::int32_t>(position % 64);
  };
  const auto run = [&](const TokenBatch& batch, std::vector<std::int32_t> slots, bool decodes) {
    const DeviceView slots_there(*context_, Tensor::of(std::span(slots), {batch.tokens()})),
        tables_there(*context_, Tensor::of(std::span(tables), {2, 3}));
    const CachedBatch cached{cache, slots_there.tensor(), decodes ? tables_there.tensor() : Tensor()};
    return states(batch, &cached);
  };
  std::vector<std::int32_t> slots;
  for (std::size_t b = 0; b < 2; ++b)
    for (std::size_t i = 0; i < begun[b]; ++i) slots.push_back(slot(b, i));
  run(beginnings, slots, false);
  const std::size_t width = 24;
  for (std::size_t step = 0; step < 5; ++step) {
    TokenBatch newest;
    std::vector<float> rows;
    slots.clear();
    for (std::size_t b = 0; b < 2; ++b) {
      const std::size_t position = begun[b] + step;
      newest.append(std::span(sequences[b]).subspan(position, 1), static_cast<std::int32_t>(position));
      slots.push_back(slot(b, position));
      const auto row = expected.begin() + static_cast<std::ptrdiff_t>((b * 131 + position) * width);
      rows.insert(rows.end(), row, row + static_cast<std::ptrdiff_t>(width));
    }
    EXPECT_TRUE(testing::agree(GetParam(), run(newest, slots, true), rows, 1e-4)) << "step " << step;
  }
}

TEST_P(GenerationTest, GreedyResponsesAreThoseOfWholePasses) {
  const std::vector<GenerationRequest> asked = requests(3);
  const std::vector<Generated> responses =
      respond(asked, {.rule = {.temperature = 0}, .max_new_tokens = 8, .batch_sequences = 2});
  for (std::size_t i = 0; i < asked.size(); ++i) {
    std::vector<std::int32_t> sequence = asked[i].prompt;
    for (const std::int32_t token : responses[i].ids) {
      ASSERT_EQ(token, first_choice(sequence)) << "request " << i << " position " << sequence.size();
      sequence.push_back(token);
    }
    EXPECT_EQ(responses[i].ids.size(), 8u);
    EXPECT_EQ(responses[i].reason, StopReason::kNewTokens);
  }
}

TEST_P(GenerationTest, AResponseDependsOnItsRequestAlone) {
  const bool is_cpu = GetParam() == Device::kCpu;  // device code on the host is slow
  const std::vector<GenerationRequest> asked = requests(is_cpu ? 9 : 3);
  const GenerationOptions options{
      .rule = {.temperature = 1.5f}, .max_new_tokens = is_cpu ? 80 : 20, .seed = 3, .batch_sequences = is_cpu ? 7 : 2};
  const std::vector<std::vector<std::int32_t>> expected = ids(respond(asked, options));

  GenerationOptions narrow = options;  // one whole sequence at a time
  narrow.cache_bytes = 0;
  narrow.prefill_tokens = 1;
  EXPECT_EQ(ids(respond(asked, narrow)), expected);
  for (const std::size_t i : {std::size_t{0}, asked.size() - 1})
    EXPECT_EQ(respond(std::span(asked).subspan(i, 1), options).front().ids, expected[i]);
  if (is_cpu) {
    GenerationOptions one_by_one = options;
    one_by_one.batch_sequences = 1;
    EXPECT_EQ(ids(respond(asked, one_by_one)), expected);
  }
  GenerationOptions other = options;
  other.seed = 4;
  EXPECT_NE(ids(respond(asked, other)), expected);
}

TEST_P(GenerationTest, ASequenceThatWasPutBackBeginsAnewWithTheSameTokens) {
  const std::vector<GenerationRequest> asked{{random_ids(62, 50, 1), 0}, {random_ids(60, 50, 2), 1}};
  GenerationOptions options{.rule = {.temperature = 1.5f}, .max_new_tokens = 75, .batch_sequences = 2};
  const std::vector<std::vector<std::int32_t>> expected = ids(respond(asked, options));
  // Two sequences of 3 pages each do not fit.
  options.cache_bytes = 4 * KeyValueCache::bytes_per_page(decoder_->config(), DType::kFloat32);
  std::int64_t drawn = 0;
  generate(*context_, model(), asked, options,
           {.token = {},
            .done = [&](std::size_t request, const Generated& response) { EXPECT_EQ(response.ids, expected[request]); },
            .step = [&](std::int64_t tokens) { drawn += tokens; }});
  EXPECT_GT(drawn, 2 * 75) << "none was put back";
}

TEST_P(GenerationTest, SamplesOfOnePromptDiffer) {
  const std::vector<std::int32_t> prompt = random_ids(5, 50, 1);
  const std::vector<GenerationRequest> asked{{prompt, 0}, {prompt, 1}, {prompt, 0}};
  const auto found = ids(respond(asked, {.rule = {.temperature = 2.0f}, .max_new_tokens = 20, .batch_sequences = 3}));
  EXPECT_EQ(found[0], found[2]);
  EXPECT_NE(found[0], found[1]);
}

TEST_P(GenerationTest, EndsAtStopTokensAndAtTheLastPosition) {
  GenerationOptions options{.rule = {.temperature = 0}, .batch_sequences = 2};
  const std::vector<GenerationRequest> asked{{random_ids(kPositions - 4, 50, 1), 0}, {random_ids(6, 50, 2), 0}};
  const std::vector<Generated> unstopped = respond(asked, options);
  EXPECT_EQ(unstopped[0].ids.size(), 4u);
  EXPECT_EQ(unstopped[1].ids.size(), static_cast<std::size_t>(kPositions) - 6);
  EXPECT_EQ(unstopped[0].reason, StopReason::kPositions);
  options.stop_tokens = {unstopped[0].ids[2]};
  const Generated stopped = respond(asked, options).front();
  EXPECT_EQ(stopped.reason, StopReason::kStopToken);
  EXPECT_LE(stopped.ids.size(), 2u);
  EXPECT_TRUE(std::equal(stopped.ids.begin(), stopped.ids.end(), unstopped[0].ids.begin()));
}

TEST_P(GenerationTest, WhatCannotBeIsNamed) {
  const std::vector<GenerationRequest> too_long{{{1}, 0}, {random_ids(kPositions, 50, 1), 0}};
  EXPECT_ERROR(respond(too_long, {}), ConfigError,
               HasSubstr("request 1: 150 tokens leave no room for a response: the model has 150"));
  EXPECT_ERROR(respond(requests(1), {.max_new_tokens = 0}), ConfigError, HasSubstr("0 new tokens"));
  const std::vector<GenerationRequest> empty{{{}, 0}};
  EXPECT_ERROR(respond(empty, {}), ShapeError, HasSubstr("empty prompt"));
  const std::vector<GenerationRequest> foreign{{{50}, 0}};
  EXPECT_ERROR(respond(foreign, {}), DataError, HasSubstr("token id 50"));
}

TEST_P(GenerationTest, LogitsThatAreNoNumbersStopIt) {
  class NanBranch : public AdapterBranch {
   public:
    void add_output(Context& context, int, const TokenBatch& batch, const Tensor&, const Tensor& mlp_out) override {
      if (batch.positions.back() < 4) return;
      std::vector<float> nan(static_cast<std::size_t>(mlp_out.elements()), std::nanf(""));
      copy(context, Tensor::of(std::span(nan), mlp_out.shape()), mlp_out);
      synchronize(context);
    }
  } nan_branch;
  splice_[2].adapter = &nan_branch;
  const std::vector<GenerationRequest> asked{{random_ids(3, 50, 1), 0}};
  EXPECT_ERROR(respond(asked, {.batch_sequences = 1}), NonFiniteError, HasSubstr("request 0: logits of position 5"));
}

}  // namespace
}  // namespace tadapt
