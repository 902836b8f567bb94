// `tadapt-dist init`: a commented tadapt.yaml for a model pair and a corpus, with defaults that suit their sizes.
#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "data/tokenizer.h"
#include "launcher/arguments.h"
#include "launcher/commands.h"
#include "launcher/run_config.h"
#include "runtime/model/decoder_config.h"
#include "runtime/plan/estimate.h"

namespace tadapt {
namespace {

namespace fs = std::filesystem;
namespace po = boost::program_options;

/// The chat format whose markers the tokenizer knows.
ChatFormat format_of(const Tokenizer& tokenizer) {
  if (tokenizer.id_of("<｜User｜>")) return ChatFormat::kDeepseek;
  return tokenizer.id_of("<|im_start|>") ? ChatFormat::kQwen : ChatFormat::kPlain;
}

/// A power of two of about 2 D to 4 D: at width 3584 the published 8192.
std::int64_t features_for(std::int64_t width) {
  return static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(2 * width)));
}

/// Rows whose cache fills half of the free disk; 0 (no limit) when even one row for each byte of the corpus is less.
std::int64_t rows_for(std::uint64_t free_bytes, std::uint64_t corpus_bytes, std::uint64_t bytes_per_row) {
  const std::uint64_t rows = free_bytes / 2 / bytes_per_row;
  return corpus_bytes <= rows ? 0 : static_cast<std::int64_t>(std::max<std::uint64_t>(rows, 1));
}

RunOptions suggest(FileSystem& files, const RunOptions& inputs, const fs::path& out) {
  const DecoderConfig base = load_decoder_config(files, inputs.model.base);
  const DecoderConfig target = load_decoder_config(files, inputs.model.target);
  require_same_mlp_shapes(base, target);
  const std::uint64_t corpus_bytes = files.file_size(inputs.corpus.train);
  if (corpus_bytes == 0) throw DataError("{}: the corpus is empty", inputs.corpus.train.string());
  RunOptions options = inputs;
  options.corpus.format = format_of(Tokenizer::load(files, inputs.model.target));
  options.corpus.max_sequence_tokens = std::min(options.corpus.max_sequence_tokens, target.max_positions);
  options.adapter.features = features_for(target.width);
  options.cache.max_tokens =
      rows_for(files.free_bytes(out), corpus_bytes, static_cast<std::uint64_t>(4 * target.width * target.layers));
  return options;
}

RunOptions inputs_of(const ParsedArguments& arguments, const Process& process) {
  const auto path = [&](const char* flag) {
    const std::string text = text_of(arguments, flag);
    if (text.empty()) throw ConfigError("init: --{} is not given", flag);
    const fs::path found = (process.current_directory / text).lexically_normal();
    if (!process.files.exists(found)) throw MissingInputError("init: --{}: {} is not there", flag, found.string());
    return found;
  };
  RunOptions options;
  options.model = {.base = path("base"), .target = path("target")};
  options.corpus.train = path("corpus");
  return options;
}

}  // namespace

int init_command(const Words& words, const Process& process) {
  CommandSyntax syntax{.usage = "init --base DIR --target DIR --corpus FILE [--out FILE]",
                       .about = "Writes a commented tadapt.yaml with options that suit the sizes of the models."};
  auto add = syntax.flags.add_options();
  add("base", po::value<std::string>()->value_name("DIR"), "the base model");
  add("target", po::value<std::string>()->value_name("DIR"), "the model that was fine-tuned from it");
  add("corpus", po::value<std::string>()->value_name("FILE"), "JSONL file of conversations");
  add("out", po::value<std::string>()->value_name("FILE")->default_value("tadapt.yaml"), "the file to write");
  const auto arguments = parse_arguments(syntax, words, process);
  if (!arguments || process.session.rank() != 0) return static_cast<int>(ExitCode::kDone);

  const fs::path out = process.current_directory / text_of(*arguments, "out");
  if (process.files.exists(out))
    throw WriteError("{}: is already there; choose another --out or remove it", out.string());
  const RunOptions options = suggest(process.files, inputs_of(*arguments, process), out);
  const std::string heading =
      fmt::format("# {} compared with {}, on {}.\n\n", options.model.target.filename().string(),
                  options.model.base.filename().string(), options.corpus.train.filename().string());
  write_atomically(process.files, out, heading + print_config(options));
  process.print(fmt::format("{} written. Next: tadapt-dist train --dry-run --config {}", out.string(), out.string()));
  return static_cast<int>(ExitCode::kDone);
}

}  // namespace tadapt
