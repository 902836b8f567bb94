// Our logits, for comparison: `interop_logits BASE TARGET ADAPTERS IDS OUT` writes those of the adapter model in fp32.
// IDS holds a sequence of token ids a line, OUT becomes a safetensors file with logits.{line} [T, V].
#include <cstdio>
#include <fstream>
#include <sstream>

#include "data/safetensors.h"
#include "runtime/eval/adapter_set.h"
#include "runtime/model/segments.h"

namespace tadapt {
namespace {

std::vector<TokenBatch> read_sequences(const std::string& path) {
  std::ifstream lines(path);
  if (!lines) throw MissingInputError("{}: cannot be opened", path);
  std::vector<TokenBatch> sequences;
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::vector<std::int32_t> ids;
    for (std::int32_t id = 0; words >> id;) ids.push_back(id);
    sequences.emplace_back().append(ids);
  }
  return sequences;
}

void run(const std::vector<std::string>& words) {
  RealFileSystem files;
  Context context = Context::cpu(1);
  const Decoder pair = Decoder::load_pair(context, files, words.at(2), words.at(1), DType::kFloat32);
  const AdapterBundle bundle =
      load_adapters(files, words.at(3), [](const std::string& text) { std::fprintf(stderr, "%s\n", text.c_str()); });
  AdapterSet adapters(context, bundle, DType::kFloat32);
  const int layers = pair.config().layers;
  Splice splice = uniform_splice(layers, {});
  for (const int layer : adapters.layers()) splice[static_cast<std::size_t>(layer)] = {MlpSource::kBase, &adapters};
  const std::vector<Segment> segments = {{.splice = splice, .begin = 0, .end = layers}};

  SegmentRunner runner(context, pair);
  std::vector<Buffer> logits;
  NamedTensors named;
  for (const TokenBatch& sequence : read_sequences(words.at(4))) {
    const ResidualStates states = runner.run(segments, sequence, {.keep = {{0, layers}}, .observe = {}});
    Buffer normed(Device::kCpu, DType::kFloat32, {sequence.tokens(), pair.config().width});
    pair.final_norm(context, states.at({0, layers}), normed.tensor());
    logits.emplace_back(Device::kCpu, DType::kFloat32, Shape{sequence.tokens(), pair.config().vocabulary});
    pair.logits(context, normed.tensor(), logits.back().tensor());
    named.emplace("logits." + std::to_string(logits.size() - 1), logits.back().tensor());
  }
  write_safetensors(files, words.at(5), named);
}

}  // namespace
}  // namespace tadapt

int main(int argc, char** argv) {
  try {
    tadapt::run({argv, argv + argc});
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "interop_logits: %s\n", error.what());
    return 1;
  }
}
