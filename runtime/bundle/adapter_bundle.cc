#include "runtime/bundle/adapter_bundle.h"

#include "data/model_files.h"
#include "runtime/model/decoder_config.h"

namespace tadapt {

AdapterBundle::Layer zero_layer(const std::string& type, int layer, const AdapterShape& shape) {
  const auto adapter = make_adapter(type, shape, {DType::kFloat32});
  return {.layer = layer,
          .shape = shape,
          .store = std::make_unique<ParameterStore>(Device::kCpu, std::vector{adapter->parameters("layer")})};
}

void require_models_fit(FileSystem& files, const AdapterBundle& bundle, const std::filesystem::path& base,
                        const std::filesystem::path& target) {
  const DecoderConfig config = load_decoder_config(files, target);
  require_same_mlp_shapes(load_decoder_config(files, base), config);
  const auto check = [&](const char* which, const std::string& trained, const std::filesystem::path& directory) {
    if (trained.empty()) return;
    const std::string found = model_fingerprint(directory);
    if (found != trained)
      throw ConfigError("{}: trained for the {} model {}, but {} is {}", bundle.source, which, trained,
                        directory.string(), found);
  };
  check("base", bundle.base_fingerprint, base);
  check("target", bundle.target_fingerprint, target);
  for (const AdapterBundle::Layer& layer : bundle.layers)
    if (layer.layer < 0 || layer.layer >= config.layers || layer.shape.model_width != config.width)
      throw ConfigError("{}: layer {} of width {} does not fit a model of {} layers and width {}", bundle.source,
                        layer.layer, layer.shape.model_width, config.layers, config.width);
}

}  // namespace tadapt
