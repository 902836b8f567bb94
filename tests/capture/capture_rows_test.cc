// The rows of captures, on every device: against the formulas, against the CPU's, and what is not finite is named.
#include <cmath>
#include <limits>

#include "data/activation_cache_reader.h"
#include "tests/capture/capture_fixture.h"
#include "tests/support/errors.h"
#include "tests/support/reference_decoder.h"
#include "tests/support/temporary_directory.h"

namespace tadapt {
namespace {

using ::testing::AllOf;
using testing::CaptureSetup;
using testing::folder_content;
using ::testing::HasSubstr;
using testing::kBase;
using testing::kTarget;
using testing::TinyCapture;

class CaptureRows : public testing::PerDevice {
 protected:
  void SetUp() override {
    PerDevice::SetUp();
    testing::write_pair(directory_.path());
  }
  /// At most `rows` of them where device code runs on the host.
  TinyCapture tiny(CaptureSetup setup, std::int64_t rows = 60) const {
    setup.device = GetParam();
    if (GetParam() != Device::kCpu) setup.rows.max_tokens = rows;
    return TinyCapture(directory_.path(), setup);
  }
  std::filesystem::path out(const std::string& name = "cache") const { return directory_ / name; }

  testing::TemporaryDirectory directory_;
  RealFileSystem files_;
};
INSTANTIATE_TEST_SUITE_P(Device, CaptureRows, testing::kEachDevice, testing::device_name);

/// The oracle's x and Δ of one token.
struct ExpectedRow {
  std::vector<double> x, delta;
};

class Oracle {
 public:
  Oracle() : target_(config(), tensors_of(target_tensors_)), base_(config(), tensors_of(base_tensors_)) {}
  ExpectedRow row(const std::vector<std::int32_t>& ids, std::size_t position, int layer) {
    const auto at = static_cast<std::size_t>(layer);
    if (ids != last_ids_) pass_ = target_.run(last_ids_ = ids);
    const testing::Matrix x{pass_.mlp_in[at][position]};
    ExpectedRow expected{.x = x[0], .delta = pass_.mlp_out[at][position]};
    const testing::Matrix base = base_.mlp(layer, x);
    for (std::size_t d = 0; d < x[0].size(); ++d) expected.delta[d] -= base[0][d];
    return expected;
  }

 private:
  static DecoderConfig config() { return parse_decoder_config(testing::tiny_config(kTarget), "config.json"); }
  static NamedTensors tensors_of(const testing::TinyTensors& tensors) { return tensors.views(); }
  testing::TinyTensors target_tensors_ = testing::tiny_tensors(kTarget), base_tensors_ = testing::tiny_tensors(kBase);
  testing::ReferenceDecoder target_, base_;
  std::vector<std::int32_t> last_ids_;
  testing::ReferenceDecoder::Pass pass_;
};

void expect_near(std::span<const float> found, const std::vector<double>& expected, double tolerance) {
  double squares = 0;
  for (const double value : expected) squares += value * value;
  const double scale = std::sqrt(squares / static_cast<double>(expected.size()));
  for (std::size_t d = 0; d < expected.size(); ++d) ASSERT_NEAR(found[d], expected[d], tolerance * scale);
}

void expect_rows_of_oracle(const TinyCapture& made, const std::filesystem::path& cache) {
  RealFileSystem files;
  const ActivationCacheReader reader(files, cache);
  ASSERT_EQ(reader.rows(), made.plan().rows);
  const CacheTokens tokens = reader.read_tokens(0, reader.rows());
  Oracle oracle;
  std::size_t row = 0;
  for (std::size_t sequence = 0; sequence < made.plan().sequences.size(); ++sequence) {
    const std::vector<std::int32_t>& ids = made.corpus()[sequence];
    const auto number = static_cast<std::int64_t>(sequence);
    for (const std::int32_t position : made.plan().positions(number, static_cast<std::int64_t>(ids.size()))) {
      ASSERT_EQ(tokens.sequences[row], number);
      ASSERT_EQ(tokens.positions[row], position);
      ASSERT_EQ(tokens.ids[row], ids[static_cast<std::size_t>(position)]);
      for (const int layer : made.plan().format.layers) {
        Buffer x(Device::kCpu, DType::kFloat32, {1, 24}), delta(Device::kCpu, DType::kFloat32, {1, 24});
        const auto at = static_cast<std::int64_t>(row);
        reader.read_rows(layer, at, at + 1, x.tensor(), delta.tensor());
        const ExpectedRow expected = oracle.row(ids, static_cast<std::size_t>(position), layer);
        expect_near(x.span<float>(), expected.x, 1e-4);
        expect_near(delta.span<float>(), expected.delta, 1e-4);
      }
      ++row;
    }
  }
  EXPECT_EQ(row, tokens.ids.size());
}

TEST_P(CaptureRows, RowsAreThoseOfTheFormulas) {
  TinyCapture all = tiny({.rows = {.max_tokens = 500}});
  EXPECT_EQ(all.run(out("all")), CaptureOutcome::kDone);
  expect_rows_of_oracle(all, out("all"));
  TinyCapture drawn = tiny({.rows = {.tokens_per_sequence = 4, .drop_first_positions = 2, .seed = 9}}, 20);
  EXPECT_EQ(drawn.run(out("drawn")), CaptureOutcome::kDone);
  expect_rows_of_oracle(drawn, out("drawn"));
}

/// All numbers of a cache, layer by layer.
std::vector<float> numbers_of(const std::filesystem::path& cache) {
  RealFileSystem files;
  const ActivationCacheReader reader(files, cache);
  std::vector<float> all;
  for (const int layer : reader.manifest().format.layers) {
    const Buffer x(Device::kCpu, DType::kFloat32, {reader.rows(), 24}),
        delta(Device::kCpu, DType::kFloat32, {reader.rows(), 24});
    reader.read_rows(layer, 0, reader.rows(), x.tensor(), delta.tensor());
    for (const Buffer* part : {&x, &delta})
      all.insert(all.end(), part->span<float>().begin(), part->span<float>().end());
  }
  return all;
}

TEST_P(CaptureRows, EqualTheCpusWhateverTheBatches) {
  CaptureSetup setup{.rows = {.max_tokens = 70, .tokens_per_sequence = 20, .seed = 4}};
  setup.format.layers = {0, 1, 2};
  TinyCapture(directory_.path(), setup).run(out("cpu"));
  setup.device = GetParam();
  for (const std::int64_t batch_tokens : {1, 100}) {
    setup.batch_tokens = batch_tokens;
    TinyCapture(directory_.path(), setup).run(out());
    EXPECT_TRUE(testing::agree(GetParam(), numbers_of(out()), numbers_of(out("cpu")), 1e-4)) << batch_tokens;
    TinyCapture(directory_.path(), setup).run(out("again"));
    EXPECT_TRUE(folder_content(out()) == folder_content(out("again"))) << batch_tokens;
    for (const char* name : {"cache", "again"}) std::filesystem::remove_all(out(name));
  }
}

TEST_P(CaptureRows, NamesWhereAPassIsNotFinite) {
  const auto spoil = [&](const std::string& model, const testing::TinyModel& shape, const std::string& tensor) {
    testing::TinyTensors tensors = testing::tiny_tensors(shape);
    tensors.buffers.at(tensor).span<float>()[5] = std::numeric_limits<float>::quiet_NaN();
    testing::write_tiny_model(directory_ / model, shape, tensors.views());
  };
  spoil("target", kTarget, "model.layers.1.mlp.up_proj.weight");
  EXPECT_ERROR(tiny({}).run(out("a")), NonFiniteError,
               AllOf(HasSubstr("layer 1"), HasSubstr("mlp_out of the target"), HasSubstr("position 0 of sequence 0")));
  spoil("target", kTarget, "model.layers.2.self_attn.v_proj.bias");
  EXPECT_ERROR(tiny({}).run(out("b")), NonFiniteError, AllOf(HasSubstr("layer 2"), HasSubstr("mlp_in")));
  testing::write_tiny_model(directory_ / "target", kTarget);
  spoil("base", kBase, "model.layers.2.mlp.down_proj.weight");
  EXPECT_ERROR(tiny({}).run(out("c")), NonFiniteError,
               AllOf(HasSubstr("layer 2"), HasSubstr("mlp_out of the base"), HasSubstr("position 0 of sequence 0")));
  EXPECT_FALSE(std::filesystem::exists(out("c") / "shard-000000.h5"));
}

TEST_P(CaptureRows, NamesSequenceAndPositionOfTheFirstRowThatIsNotFinite) {
  TinyCapture job = tiny({}, 100);
  const auto& corpus = job.corpus();
  const std::int32_t id = corpus[1].back();
  std::size_t sequence = 0;
  while (std::ranges::find(corpus[sequence], id) == corpus[sequence].end()) ++sequence;
  const auto position = std::ranges::find(corpus[sequence], id) - corpus[sequence].begin();
  ASSERT_GT(sequence + static_cast<std::size_t>(position), 0u);
  testing::TinyTensors tensors = testing::tiny_tensors(kTarget);
  tensors.buffers.at("model.embed_tokens.weight").span<float>()[static_cast<std::size_t>(id) * 24 + 3] = INFINITY;
  testing::write_tiny_model(directory_ / "target", kTarget, tensors.views());
  // A GPU's attention multiplies the values of a tile with weights of 0 where a query may not look, and 0 times
  // infinity is not a number: there a row some positions before may be the first.
  const std::string place = GetParam() == Device::kCpu ? fmt::format("at position {} ", position) : "";
  EXPECT_ERROR(job.run(out()), NonFiniteError,
               AllOf(HasSubstr("layer 0: mlp_in is not finite"), HasSubstr(place),
                     HasSubstr(fmt::format("of sequence {}", sequence))));
}

}  // namespace
}  // namespace tadapt
