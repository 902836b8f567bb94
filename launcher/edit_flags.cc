#include "launcher/edit_flags.h"

#include <charconv>
#include <cmath>

namespace tadapt {
namespace {

namespace po = boost::program_options;

std::optional<NamedFeatureSet> set_of(const ParsedArguments& arguments, const char* flag, const Process& process) {
  if (arguments.count(flag) == 0) return std::nullopt;
  const std::filesystem::path path = process.current_directory / text_of(arguments, flag);
  return NamedFeatureSet{.file = path.string(), .set = read_feature_set(process.files, path)};
}

float scale_of(const ParsedArguments& arguments, float otherwise) {
  if (arguments.count("scale") == 0) return otherwise;
  const std::string text = text_of(arguments, "scale");
  float scale = 0.0f;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), scale);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(scale))
    throw ConfigError("--scale: expected a number, found '{}'", text);
  return scale;
}

}  // namespace

void add_edit_flags(po::options_description& flags) {
  auto add = flags.add_options();
  const auto file = [] { return po::value<std::string>()->value_name("SET"); };
  add("remove", file(), "take these features out of the adapters");
  add("keep-only", file(), "take all other features out");
  add("add-to-target", file(),
      "run these features alone beside the target's own MLPs, decoders scaled by --scale, without decoder bias");
  add("scale", po::value<std::string>()->value_name("X"), "of the decoders; 1, with --add-to-target -0.5");
  add("without-decoder-bias", "take b_dec out: adapters without features are then the hybrid");
}

FeatureEdit edit_of(const ParsedArguments& arguments, const Process& process) {
  FeatureEdit edit{.remove = set_of(arguments, "remove", process),
                   .keep_only = set_of(arguments, "keep-only", process),
                   .decoder_scale = 1.0f};
  if (arguments.count("without-decoder-bias") > 0) edit.decoder_bias = FeatureEdit::DecoderBias::kDropped;
  if (arguments.count("add-to-target") > 0) {
    if (edit.keep_only) throw ConfigError("--add-to-target and --keep-only exclude each other");
    edit.keep_only = set_of(arguments, "add-to-target", process);
    edit.decoder_bias = FeatureEdit::DecoderBias::kDropped;
    edit.beside = MlpSource::kTarget;
  }
  edit.decoder_scale = scale_of(arguments, edit.beside == MlpSource::kTarget ? kTakenFromTarget : 1.0f);
  return edit;
}

std::string suffix_of(const FeatureEdit& edit) {
  std::string suffix;
  if (edit.keep_only)
    suffix += (edit.beside == MlpSource::kTarget ? "-target-with-" : "-only-") + edit.keep_only->set.name;
  if (edit.remove) suffix += "-without-" + edit.remove->set.name;
  if (edit.decoder_scale != 1.0f) suffix += fmt::format("-times{}", edit.decoder_scale);
  if (edit.decoder_bias == FeatureEdit::DecoderBias::kDropped && edit.beside == MlpSource::kBase)
    suffix += "-without-bias";
  return suffix;
}

}  // namespace tadapt
