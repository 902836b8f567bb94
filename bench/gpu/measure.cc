// What the backend's parts reach on a device, each beside a ceiling measured in the same run. JSON lines, for
// bench/gpu/run.
//   bench_gpu_measure [--device cuda|cpu] [--small] [SECTION…]
#include <chrono>
#include <cstdio>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>

#include "kernels/attention.h"
#include "kernels/core/memory.h"
#include "kernels/optim.h"
#include "kernels/uniform.h"
#include "runtime/capture/row_pass.h"
#include "runtime/optim/adamw_state.h"
#include "runtime/plan/step_timer.h"
#include "tests/support/temporary_directory.h"

namespace tadapt {
namespace {

/// The sizes to measure at: those of the 7B pair, or ones that any machine gets through, to try the program.
struct Sizes {
  std::int64_t width = 3584, features = 8192, product = 8192, copied_mb = 2048, parameters = 58'732'544;
  std::vector<std::int64_t> tokens{4096, 16384, 65536};
  int layers = 28;
  std::int64_t mlp_width = 18944, heads = 28, kv_heads = 4, vocabulary = 152064, sequences = 8, length = 2048;
};
const Sizes kSmall{.width = 64,
                   .features = 128,
                   .product = 128,
                   .copied_mb = 1,
                   .parameters = 8192,
                   .tokens = {},
                   .layers = 2,
                   .mlp_width = 96,
                   .heads = 4,
                   .kv_heads = 2,
                   .vocabulary = 300,
                   .sequences = 2,
                   .length = 40};

class Measurement {
 public:
  Measurement(Context& context, const Sizes& sizes) : context_(context), sizes_(sizes) {}

  /// Seconds of one call: the median of several, all asked for at once when they are short.
  double seconds(const std::function<void()>& work) {
    work();
    synchronize(context_);
    std::vector<double> runs;
    for (int run = 0; run < kRuns; ++run) {
      const auto start = std::chrono::steady_clock::now();
      for (int i = 0; i < kTogether; ++i) work();
      synchronize(context_);
      runs.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / kTogether);
    }
    return median(runs);
  }

  void say(nlohmann::json line) {
    std::printf("%s\n", line.dump().c_str());
    std::fflush(stdout);
  }

  Buffer random(DType dtype, Shape shape, std::uint64_t sample) {
    Buffer numbers(context_.device(), dtype, shape);
    uniform(context_, RandomStream(1, RandomPurpose::kTest, 0, sample), 1.0f,
            numbers.tensor().reshaped({shape.elements()}));
    return numbers;
  }

  /// FLOP/s of y = x Wᵀ on random data.
  double product_rate(std::int64_t tokens, std::int64_t outputs, std::int64_t inputs, Epilogue epilogue) {
    const Buffer x = random(DType::kBFloat16, {tokens, inputs}, 1), w = random(DType::kBFloat16, {outputs, inputs}, 2);
    const Buffer y(context_.device(), DType::kFloat32, {tokens, outputs});
    const Buffer bias(context_.device(), DType::kFloat32, {outputs});
    const PackedWeights packed = pack_weights(context_, w.tensor(), Layout::kOutputInput, DType::kBFloat16);
    const double time = seconds([&] {
      matmul(context_, x.tensor(), packed, epilogue == Epilogue::kRelu ? bias.tensor() : Tensor(), epilogue,
             y.tensor());
    });
    return 2.0 * static_cast<double>(tokens) * static_cast<double>(outputs) * static_cast<double>(inputs) / time;
  }

  void ceilings() {
    flops_ = product_rate(sizes_.product, sizes_.product, sizes_.product, Epilogue::kNone);
    const std::int64_t numbers = sizes_.copied_mb << 18;
    const Buffer from = random(DType::kFloat32, {numbers}, 3), to(context_.device(), DType::kFloat32, {numbers});
    const double bytes = 2.0 * static_cast<double>(from.bytes());
    bandwidth_ = bytes / seconds([&] { copy(context_, from.tensor(), to.tensor()); });
    say({{"section", "ceilings"},
         {"what", "bf16 product, all sides " + std::to_string(sizes_.product)},
         {"value", flops_ * 1e-12},
         {"unit", "TFLOP/s"}});
    say({{"section", "ceilings"},
         {"what", "copy on the device, read and written"},
         {"value", bandwidth_ * 1e-9},
         {"unit", "GB/s"}});
  }

  /// One leaf's forward, loss and gradients, and a whole training step of a layer, beside the encoder's product alone.
  void adapter_step() {
    for (const std::int64_t tokens : sizes_.tokens) {
      const double product = product_rate(tokens, sizes_.features, sizes_.width, Epilogue::kRelu);
      const double encoder = 2.0 * static_cast<double>(tokens * sizes_.features * sizes_.width) / product;
      for (const double l0 : {0.1, 1.4, 10.0, 64.0, 4096.0}) {
        const double scaled = l0 / 8192.0 * static_cast<double>(sizes_.features);
        for (const bool sparse : {false, true}) step(tokens, scaled, sparse, encoder);
      }
    }
  }

  void step(std::int64_t tokens, double l0, bool sparse, double encoder) {
    const double below = sparse ? 4.0 * l0 + 64.0 : 0.0;
    StepTimer timer(context_, {.shape = {sizes_.width, sizes_.features}, .tokens = tokens}, below);
    timer.set_l0(l0);
    timer.seconds();
    std::vector<double> runs;
    for (int run = 0; run < kRuns; ++run) runs.push_back(timer.seconds());
    const double time = median(runs);
    say({{"section", "adapter_step"},
         {"what", sparse ? "sparse" : "dense"},
         {"tokens", tokens},
         {"l0", timer.l0()},
         {"value", 1e3 * time},
         {"unit", "ms"},
         {"ns_per_token", 1e9 * time / static_cast<double>(tokens)},
         {"ceiling", 1e3 * encoder},
         {"ceiling_is", "the encoder's product alone"}});
  }

  void adamw_step() {
    ParameterStore store(context_.device(), {{"all", {{"w", {sizes_.parameters}}}, {}}});
    AdamWState state(context_.device(), store);
    Buffer working(context_.device(), DType::kBFloat16, {store.master(0).elements()});
    const auto numbers = static_cast<double>(store.master(0).elements());
    const auto report = [&](const char* what, double bytes, const std::function<void()>& work) {
      say({{"section", "adamw"},
           {"what", what},
           {"value", bytes / seconds(work) * 1e-9},
           {"unit", "GB/s"},
           {"ceiling", bandwidth_ * 1e-9},
           {"ceiling_is", "the copy"}});
    };
    report("norm", 4 * numbers, [&] { state.measure(context_, store, 0); });
    report("update", 28 * numbers, [&] {
      adamw(context_,
            {store.master(0), state.first_moment(0), state.second_moment(0),
             store.gradient(0).rows(0, store.master(0).elements()), Tensor()},
            {.learning_rate = 1e-4});
    });
    report("update with a bf16 copy", 30 * numbers, [&] {
      adamw(context_,
            {store.master(0), state.first_moment(0), state.second_moment(0),
             store.gradient(0).rows(0, store.master(0).elements()), working.tensor()},
            {.learning_rate = 1e-4});
    });
  }

  void attention() {
    const std::int64_t tokens = sizes_.sequences * sizes_.length, size = sizes_.width / sizes_.heads;
    const Buffer query = random(DType::kFloat32, {tokens, sizes_.heads, size}, 5),
                 key = random(DType::kFloat32, {tokens, sizes_.kv_heads, size}, 6),
                 value = random(DType::kFloat32, {tokens, sizes_.kv_heads, size}, 7),
                 out(context_.device(), DType::kFloat32, {tokens, sizes_.heads, size});
    std::vector<std::int32_t> offsets;
    for (std::int64_t b = 0; b <= sizes_.sequences; ++b)
      offsets.push_back(static_cast<std::int32_t>(b * sizes_.length));
    const Tensor starts = Tensor::of(std::span(offsets), {sizes_.sequences + 1});
    const double pairs = static_cast<double>(sizes_.sequences) * static_cast<double>(sizes_.length) *
                         (static_cast<double>(sizes_.length) + 1) / 2;
    const double flops = 4.0 * pairs * static_cast<double>(sizes_.heads * size);
    for (const DType compute : {DType::kBFloat16, DType::kFloat32}) {
      const double time = seconds([&] {
        causal_attention(context_, {query.tensor(), key.tensor(), value.tensor(), starts, compute}, out.tensor());
      });
      say({{"section", "attention"},
           {"what", std::string("causal attention, ") + name(compute)},
           {"value", flops / time * 1e-12},
           {"unit", "TFLOP/s"},
           {"ceiling", flops_ * 1e-12},
           {"ceiling_is", "the bf16 product"}});
    }
  }

  /// The whole pass of a capture but the writing of files, with random weights.
  void capture() {
    testing::TemporaryDirectory folder;
    RealFileSystem files;
    const nlohmann::json config = {{"model_type", "qwen2"},
                                   {"hidden_size", sizes_.width},
                                   {"intermediate_size", sizes_.mlp_width},
                                   {"num_hidden_layers", sizes_.layers},
                                   {"num_attention_heads", sizes_.heads},
                                   {"num_key_value_heads", sizes_.kv_heads},
                                   {"vocab_size", sizes_.vocabulary},
                                   {"rms_norm_eps", 1e-6},
                                   {"rope_theta", 1e4},
                                   {"max_position_embeddings", 32768},
                                   {"tie_word_embeddings", false},
                                   {"hidden_act", "silu"},
                                   {"architectures", {"Qwen2ForCausalLM"}}};
    write_atomically(files, folder / "config.json", config.dump());
    const DecoderConfig decoder = load_decoder_config(files, folder.path());
    const Decoder pair = Decoder::make_pair(context_, decoder, RandomWeights(1), RandomWeights(2), DType::kBFloat16);
    CacheFormat format{.layers = {}, .width = decoder.width, .sequences_per_shard = sizes_.sequences};
    for (int layer = 0; layer < decoder.layers; ++layer) format.layers.push_back(layer);
    const std::vector<std::int64_t> lengths(static_cast<std::size_t>(sizes_.sequences), sizes_.length);
    const CapturePlan plan = plan_capture({.target = decoder, .lengths = lengths, .format = format, .rows = {}});
    std::vector<std::int32_t> ids;
    for (std::int64_t i = 0; i < sizes_.length; ++i)
      ids.push_back(static_cast<std::int32_t>(i * 7919 % sizes_.vocabulary));
    RowPass pass(context_, pair, plan, plan.rows);
    double best = 0;
    for (int run = 0; run < 3; ++run) {
      pass.begin(plan.rows_of_shard(0));
      const auto start = std::chrono::steady_clock::now();
      while (!pass.done()) pass.run_batch([&](std::int64_t) { return std::span<const std::int32_t>(ids); }, 8192);
      synchronize(context_);
      const double time = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      best = run == 0 ? time : std::min(best, time);
    }
    say({{"section", "capture"},
         {"what", "x and delta of all layers, into host memory"},
         {"value", static_cast<double>(plan.tokens) / best},
         {"unit", "tokens/s"},
         {"tflops", plan.flops / best * 1e-12},
         {"ceiling", flops_ * 1e-12 * static_cast<double>(plan.tokens) / (plan.flops * 1e-12)},
         {"ceiling_is", "its products at the speed of the large one"}});
  }

 private:
  static constexpr int kRuns = 9, kTogether = 3;
  Context& context_;
  const Sizes& sizes_;
  double flops_ = 0, bandwidth_ = 0;
};

int run(int argc, char** argv) {
  Device device = Device::kCuda;
  Sizes sizes;
  std::set<std::string> sections;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--small") {
      sizes = kSmall;
      sizes.tokens = {33};
    } else if (word == "--device" && i + 1 < argc) {
      device = std::string(argv[++i]) == "cpu" ? Device::kCpu : Device::kCuda;
    } else {
      sections.insert(word);
    }
  }
  Context context = device == Device::kCpu ? Context::cpu(threads_per_rank(1)) : Context::cuda(0);
  Measurement measure(context, sizes);
  const std::pair<const char*, void (Measurement::*)()> all[] = {{"ceilings", &Measurement::ceilings},
                                                                 {"adamw", &Measurement::adamw_step},
                                                                 {"attention", &Measurement::attention},
                                                                 {"adapter_step", &Measurement::adapter_step},
                                                                 {"capture", &Measurement::capture}};
  measure.say({{"section", "device"}, {"what", device_kind(device)}, {"products", product_library(device)}});
  for (const auto& [name, section] : all)
    if (sections.empty() || sections.contains(name) || std::string(name) == "ceilings") (measure.*section)();
  return 0;
}

}  // namespace
}  // namespace tadapt

int main(int argc, char** argv) {
  try {
    return tadapt::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_gpu_measure: %s\n", error.what());
    return 1;
  }
}
