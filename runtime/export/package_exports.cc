#include "runtime/export/package_exports.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "runtime/export/export.h"
#include "runtime/export/export_writer.h"

namespace tadapt {
namespace {
using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

constexpr char kAdds[] = "added to the output of the base model's MLP, in the place of the target's MLP";

NamedTensors named(const ParameterTensors& masters) {
  NamedTensors tensors;
  for (const char* name : {"W_enc", "b_enc", "W_dec", "b_dec"}) tensors[name] = masters[name];
  return tensors;
}

Json sae_lens_config(const AdapterBundle::Layer& layer, const std::string& model_name) {
  return {{"architecture", "transcoder"},
          {"d_in", layer.shape.model_width},
          {"d_sae", layer.shape.features},
          {"d_out", layer.shape.model_width},
          {"dtype", "float32"},
          {"device", "cpu"},
          {"apply_b_dec_to_input", false},
          {"normalize_activations", "none"},
          {"reshape_activations", "none"},
          {"metadata",
           {{"model_name", model_name},
            {"hook_name", fmt::format("blocks.{}.mlp.hook_in", layer.layer)},
            {"hook_name_out", fmt::format("blocks.{}.mlp.hook_out", layer.layer)},
            {"note", kAdds}}}};
}

Json sparsify_config(const AdapterBundle::Layer& layer, std::int64_t k) {
  return {{"activation", "topk"},
          {"expansion_factor", 0},
          {"normalize_decoder", false},
          {"num_latents", layer.shape.features},
          {"k", k > 0 ? std::min(k, layer.shape.features) : layer.shape.features},
          {"multi_topk", false},
          {"skip_connection", false},
          {"transcode", true},
          {"d_in", layer.shape.model_width},
          {"note", kAdds}};
}

}  // namespace

std::uint64_t export_circuit_tracer(FileSystem& files, const AdapterBundle& bundle, const PackageExport& how,
                                    const fs::path& out) {
  const AdapterShape shape = shape_of_transcoders(bundle, "circuit-tracer");
  ExportWriter writer(files, out, bundle.step);
  const AdapterBundle::Layer none = zero_layer(bundle.type, 0, shape);
  std::uint64_t bytes = 0;
  std::string paths;
  for (int layer = 0; layer <= bundle.layers.back().layer; ++layer) {
    const auto found = std::ranges::find(bundle.layers, layer, &AdapterBundle::Layer::layer);
    const AdapterBundle::Layer& own = found == bundle.layers.end() ? none : *found;
    const std::string name = fmt::format("layer_{}.safetensors", layer);
    bytes += writer.write_tensors(name, named(own.store->master_views(0)), "pt");
    paths += fmt::format("  - {}\n", name);
  }
  writer.write_text("config.yaml", fmt::format("# These transcoders are {}.\n"
                                               "model_name: {}\nmodel_kind: transcoder_set\nscan: {}\n"
                                               "feature_input_hook: mlp.hook_in\nfeature_output_hook: mlp.hook_out\n"
                                               "activation: relu\ntranscoders:\n{}",
                                               kAdds, Json(how.model_name).dump(), Json(how.model_name).dump(), paths));
  writer.finish(bundle, "circuit-tracer");
  return bytes;
}

std::uint64_t export_sae_lens(FileSystem& files, const AdapterBundle& bundle, const PackageExport& how,
                              const fs::path& out) {
  require_transcoders(bundle, "sae-lens");
  ExportWriter writer(files, out, bundle.step);
  std::uint64_t bytes = 0;
  for (const AdapterBundle::Layer& layer : bundle.layers) {
    const std::string folder = fmt::format("layer_{}/", layer.layer);
    NamedTensors tensors = named(layer.store->master_views(0));
    const Buffer encoder = transposed(tensors.at("W_enc"));
    tensors["W_enc"] = encoder.tensor();
    bytes += writer.write_tensors(folder + "sae_weights.safetensors", tensors, "pt");
    writer.write_text(folder + "cfg.json", sae_lens_config(layer, how.model_name).dump(2) + "\n");
  }
  writer.finish(bundle, "sae-lens");
  return bytes;
}

std::uint64_t export_sparsify(FileSystem& files, const AdapterBundle& bundle, const PackageExport& how,
                              const fs::path& out) {
  require_transcoders(bundle, "sparsify");
  ExportWriter writer(files, out, bundle.step);
  std::uint64_t bytes = 0;
  for (const AdapterBundle::Layer& layer : bundle.layers) {
    const std::string folder = fmt::format("layers.{}.mlp/", layer.layer);
    const ParameterTensors masters = layer.store->master_views(0);
    bytes += writer.write_tensors(folder + "sae.safetensors",
                                  {{"encoder.weight", masters["W_enc"]},
                                   {"encoder.bias", masters["b_enc"]},
                                   {"W_dec", masters["W_dec"]},
                                   {"b_dec", masters["b_dec"]}},
                                  "pt");
    writer.write_text(folder + "cfg.json", sparsify_config(layer, how.k).dump(2) + "\n");
  }
  writer.finish(bundle, "sparsify");
  return bytes;
}

}  // namespace tadapt
