// config.json as found in the wild: what is read, what is refused, and how the refusal reads.
#include "runtime/model/decoder_config.h"

#include <nlohmann/json.hpp>

#include "tests/support/errors.h"
#include "tests/support/temporary_directory.h"

namespace tadapt {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

const std::filesystem::path kFile = "/models/some/config.json";

/// Qwen2.5-Math-7B's config.json, every key.
json math_7b() {
  return json::parse(R"({"architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643,
    "eos_token_id": 151643, "hidden_act": "silu", "hidden_size": 3584, "initializer_range": 0.02,
    "intermediate_size": 18944, "max_position_embeddings": 4096, "max_window_layers": 28, "model_type": "qwen2",
    "num_attention_heads": 28, "num_hidden_layers": 28, "num_key_value_heads": 4, "rms_norm_eps": 1e-06,
    "rope_theta": 10000, "sliding_window": 4096, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
    "transformers_version": "4.44.0", "use_cache": true, "use_mrope": false, "use_sliding_window": false,
    "vocab_size": 152064})");
}

DecoderConfig parsed(const json& config) { return parse_decoder_config(config.dump(), kFile); }
DecoderConfig changed(const json& patch) {
  json config = math_7b();
  config.merge_patch(patch);  // null removes a key
  return parsed(config);
}

TEST(DecoderConfig, ReadsARealFile) {
  const DecoderConfig config = parsed(math_7b());
  EXPECT_EQ(config.architecture->model_type, "qwen2");
  EXPECT_EQ(config.layers, 28);
  EXPECT_EQ(config.width, 3584);
  EXPECT_EQ(config.mlp_width, 18944);
  EXPECT_EQ(config.vocabulary, 152064);
  EXPECT_EQ(config.heads, 28);
  EXPECT_EQ(config.kv_heads, 4);
  EXPECT_EQ(config.head_width, 128);
  EXPECT_EQ(config.query_width(), 3584);
  EXPECT_EQ(config.key_width(), 512);
  EXPECT_EQ(config.max_positions, 4096);
  EXPECT_EQ(config.rope_theta, 10000.0);
  EXPECT_EQ(config.norm_epsilon, 1e-6);
  EXPECT_FALSE(config.tied_head);
  EXPECT_EQ(layer_tensor(config.architecture->names.gate, 27), "model.layers.27.mlp.gate_proj.weight");
}

TEST(DecoderConfig, ReadsOptionalAndNewerSpellings) {
  EXPECT_TRUE(changed({{"tie_word_embeddings", true}}).tied_head);
  EXPECT_EQ(changed({{"head_dim", 64}}).query_width(), 28 * 64);
  EXPECT_EQ(changed({{"num_key_value_heads", nullptr}}).kv_heads, 28);
  EXPECT_EQ(changed({{"architectures", nullptr}}).layers, 28);
  EXPECT_EQ(changed({{"rope_theta", 1000000.5}}).rope_theta, 1000000.5);
  EXPECT_EQ(changed({{"rope_theta", nullptr}}).rope_theta, 10000.0);
  EXPECT_EQ(changed({{"rope_scaling", {{"type", "default"}}}}).rope_theta, 10000.0);
  EXPECT_EQ(changed({{"torch_dtype", nullptr}, {"dtype", "float16"}}).layers, 28);
  const json newer{{"rope_type", "default"}, {"rope_theta", 25000.0}};
  EXPECT_EQ(changed({{"rope_theta", nullptr}, {"rope_parameters", newer}}).rope_theta, 25000.0);
  json with_null = math_7b();
  with_null["rope_scaling"] = nullptr;
  with_null["head_dim"] = nullptr;
  EXPECT_EQ(parsed(with_null).head_width, 128);
}

TEST(DecoderConfig, SlidingWindowsCountOnlyWhereTheyAreUsed) {
  EXPECT_EQ(changed({{"sliding_window", 16}}).layers, 28) << "use_sliding_window is false";
  EXPECT_EQ(changed({{"use_sliding_window", true}}).layers, 28) << "the window is as long as the longest sequence";
  EXPECT_EQ(changed({{"use_sliding_window", true}, {"sliding_window", 16}}).layers, 28) << "no layer beyond the 28th";
  EXPECT_ERROR(changed({{"use_sliding_window", true}, {"sliding_window", 16}, {"max_window_layers", 27}}), ConfigError,
               AllOf(HasSubstr(kFile.string()), HasSubstr("sliding_window 16"), HasSubstr("4096")));
  const json mixed{
      {"use_sliding_window", true}, {"sliding_window", 16}, {"layer_types", {"full_attention", "sliding_attention"}}};
  EXPECT_ERROR(changed(mixed), ConfigError, HasSubstr("sliding_window 16"));
}

TEST(DecoderConfig, RefusesByNameWhatIsNotSupported) {
  const auto refused = [](const json& patch, const char* key, const char* value) {
    EXPECT_ERROR(changed(patch), ConfigError, AllOf(HasSubstr(kFile.string()), HasSubstr(key), HasSubstr(value)));
  };
  refused({{"model_type", "mamba"}}, "model_type", "mamba");
  refused({{"architectures", {"Qwen2ForSequenceClassification"}}}, "architectures", "Qwen2ForSequenceClassification");
  refused({{"rope_scaling", {{"type", "yarn"}, {"factor", 4.0}}}}, "rope_scaling", "yarn");
  refused({{"rope_scaling", {{"rope_type", "linear"}}}}, "rope_scaling", "linear");
  refused({{"rope_parameters", {{"full_attention", {{"rope_theta", 1e4}}}}}}, "rope_parameters", "full_attention");
  refused({{"hidden_act", "gelu"}}, "hidden_act", "gelu");
  refused({{"quantization_config", {{"quant_method", "gptq"}}}}, "quantization_config", "gptq");
  refused({{"use_mrope", true}}, "use_mrope", "true");
  refused({{"partial_rotary_factor", 0.5}}, "partial_rotary_factor", "0.5");
}

TEST(DecoderConfig, NamesWhatNoModelCanHave) {
  const auto wrong = [](const json& patch, const char* key, const char* found) {
    EXPECT_ERROR(changed(patch), DataError, AllOf(HasSubstr(kFile.string()), HasSubstr(key), HasSubstr(found)));
  };
  wrong({{"hidden_size", nullptr}}, "hidden_size", "missing");
  wrong({{"model_type", nullptr}}, "model_type", "missing");
  wrong({{"hidden_size", 0}}, "hidden_size", "0");
  wrong({{"hidden_size", -3584}}, "hidden_size", "-3584");
  wrong({{"hidden_size", "3584"}}, "hidden_size", "\"3584\"");
  wrong({{"hidden_size", 3584.5}}, "hidden_size", "3584.5");
  wrong({{"vocab_size", 18446744073709551615u}}, "vocab_size", "18446744073709551615");
  wrong({{"num_hidden_layers", 1000000}}, "num_hidden_layers", "1000000");
  wrong({{"hidden_size", 3585}}, "hidden_size", "3585");
  wrong({{"num_key_value_heads", 5}}, "num_key_value_heads", "5");
  wrong({{"head_dim", 7}}, "head width 7", "2");
  wrong({{"rms_norm_eps", 0}}, "rms_norm_eps", "0");
  wrong({{"rope_theta", "10000"}}, "rope_theta", "10000");
  wrong({{"rope_theta", -1}}, "rope_theta", "-1");
  wrong({{"rope_parameters", {{"rope_theta", 5.0}}}}, "rope_theta", "5.0");
  wrong({{"rope_scaling", "yarn"}}, "rope_scaling", "yarn");
  wrong({{"tie_word_embeddings", 1}}, "tie_word_embeddings", "1");
}

TEST(DecoderConfig, MalformedFiles) {
  for (const char* text : {"", "{", "[1, 2]", "null", "{\"hidden_size\": 1e999}", "\xff\xfe"}) {
    EXPECT_ERROR(parse_decoder_config(text, kFile), DataError, HasSubstr(kFile.string()));
  }
  testing::TemporaryDirectory directory;
  RealFileSystem files;
  EXPECT_ERROR(load_decoder_config(files, directory / "none"), MissingInputError, HasSubstr("config.json"));
  write_atomically(files, directory / "config.json", math_7b().dump());
  EXPECT_EQ(load_decoder_config(files, directory.path()).file, directory / "config.json");
}

TEST(DecoderConfig, PairsMustAgreeInTheShapeOfMlps) {
  const DecoderConfig target = parsed(math_7b());
  const auto refused = [&](const json& patch, const char* key, const char* value) {
    EXPECT_ERROR(require_same_mlp_shapes(changed(patch), target), ConfigError, AllOf(HasSubstr(key), HasSubstr(value)));
  };
  refused({{"num_hidden_layers", 27}}, "num_hidden_layers is 27", "28");
  refused({{"hidden_size", 1792}}, "hidden_size is 1792", "3584");
  refused({{"intermediate_size", 100}}, "intermediate_size is 100", "18944");
  EXPECT_NO_THROW(require_same_mlp_shapes(changed({{"vocab_size", 5}, {"num_key_value_heads", 7}}), target));
}

TEST(DecoderConfig, TheBaseRowNeedsMore) {
  const DecoderConfig target = parsed(math_7b());
  EXPECT_EQ(base_row_refusal(changed({{"max_position_embeddings", 131072}, {"rms_norm_eps", 1e-5}}), target),
            std::nullopt);
  EXPECT_THAT(base_row_refusal(changed({{"vocab_size", 5}}), target).value(),
              AllOf(HasSubstr("vocab_size is 5"), HasSubstr("152064")));
  EXPECT_THAT(base_row_refusal(changed({{"rope_theta", 1e6}}), target).value(), HasSubstr("rope_theta is 1000000"));
  EXPECT_THAT(base_row_refusal(changed({{"tie_word_embeddings", true}}), target).value(),
              HasSubstr("tie_word_embeddings is true"));
  EXPECT_THAT(base_row_refusal(changed({{"num_key_value_heads", 7}}), target).value(),
              HasSubstr("num_key_value_heads is 7"));
}

}  // namespace
}  // namespace tadapt
