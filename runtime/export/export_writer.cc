#include "runtime/export/export_writer.h"

#include <nlohmann/json.hpp>

#include "runtime/bundle/load_export.h"

namespace tadapt {
using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

Buffer transposed(const Tensor& matrix) {
  const std::int64_t rows = matrix.size(0), columns = matrix.size(1);
  Buffer result(Device::kCpu, DType::kFloat32, {columns, rows});
  const auto from = matrix.span<float>();
  const auto to = result.span<float>();
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t c = 0; c < columns; ++c)
      to[static_cast<std::size_t>(c * rows + r)] = from[static_cast<std::size_t>(r * columns + c)];
  return result;
}

ExportWriter::ExportWriter(FileSystem& files, const fs::path& out, std::int64_t step)
    : files_(files), folder_(files, out) {
  checksums_.step = step;
}

fs::path ExportWriter::place_of(const std::string& name) {
  const fs::path path = folder_.path() / name;
  if (path.parent_path() != folder_.path()) files_.make_directories(path.parent_path());
  return path;
}

std::uint64_t ExportWriter::write_tensors(const std::string& name, const NamedTensors& tensors, const char* format) {
  const SafetensorsRecord record = write_safetensors(files_, place_of(name), tensors, {{"format", format}});
  checksums_.files[name] = record;
  return record.bytes;
}

void ExportWriter::write_text(const std::string& name, const std::string& text) {
  write_atomically(files_, place_of(name), text);
  checksums_.files[name] = {.bytes = text.size(), .crc32c = crc32c(std::as_bytes(std::span(text))), .tensors = {}};
}

void ExportWriter::finish(const AdapterBundle& bundle, const char* format) {
  Json layers = Json::array();
  for (const AdapterBundle::Layer& layer : bundle.layers)
    layers.push_back({{"layer", layer.layer}, {"features", layer.shape.features}, {"width", layer.shape.model_width}});
  Json description = {{"format_version", kExportFormatVersion},
                      {"format", format},
                      {"type", bundle.type},
                      {"step", bundle.step},
                      {"base", bundle.base_fingerprint},
                      {"target", bundle.target_fingerprint},
                      {"layers", layers}};
  if (!bundle.edits.empty()) description["edits"] = bundle.edits;
  if (bundle.beside == MlpSource::kTarget) description["beside"] = "target";
  write_text(kExportDescription, description.dump(2) + "\n");
  write_atomically(files_, folder_.path() / kExportChecksums, checksums_.to_text());
  folder_.publish();
}

}  // namespace tadapt
