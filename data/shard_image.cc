// Encoding of rows, chunk by chunk, into an HDF5 image.
#include "data/shard_image.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "data/row_codec.h"
#include "kernels/core/error.h"

namespace tadapt {
namespace {
/// Appends datasets to an image in the order of the layout.
class ShardImageBuilder {
 public:
  ShardImageBuilder(const std::string& label, const CacheFormat& format, const ShardRows& rows)
      : label_(label),
        format_(format),
        rows_(rows),
        layout_(shard_layout(format, static_cast<std::int64_t>(rows.ids.size()))),
        image_(label) {}

  void append_layers() {
    for (std::size_t i = 0; i < format_.layers.size(); ++i) append_layer(i);
  }

  void append_tokens() {
    append_column(rows_.ids);
    append_column(rows_.sequences);
    append_column(rows_.positions);
  }

  std::vector<RoundingSums> take_rounding() { return std::move(rounding_); }
  const std::vector<Hdf5Dataset>& layout() const { return layout_; }
  Hdf5Image::Finished finish() { return image_.finish(); }

 private:
  struct Encoded {
    std::vector<double> square_norms;
    std::vector<float> scales;
    double square = 0, error_square = 0;
  };

  void append_layer(std::size_t index) {
    const ShardRows::Layer& layer = rows_.layers[index];
    const Encoded input = append_rows(index, "mlp_in", layer.mlp_in);
    const Encoded delta = append_rows(index, "mlp_delta", layer.mlp_delta);
    append_column<double>(delta.square_norms);
    if (format_.row_dtype == DType::kInt8) {
      append_column<float>(input.scales);
      append_column<float>(delta.scales);
    }
    rounding_.push_back({input.square, input.error_square, delta.square, delta.error_square});
  }

  Encoded append_rows(std::size_t layer_index, const char* what, const Tensor& tensor) {
    const Hdf5Dataset& dataset = next_dataset();
    const std::span<const float> values = tensor.span<float>();
    const auto width = static_cast<std::size_t>(format_.width);
    const auto rows = static_cast<std::size_t>(dataset.shape[0]);
    const auto chunk_rows = static_cast<std::size_t>(dataset.chunk_rows);
    Encoded encoded;
    std::vector<std::byte> chunk(dataset.chunk_bytes());
    for (std::size_t begin = 0; begin < rows; begin += chunk_rows) {
      std::fill(chunk.begin(), chunk.end(), std::byte{0});
      for (std::size_t row = begin; row < std::min(begin + chunk_rows, rows); ++row) {
        const EncodedRow result = encode_row(values.subspan(row * width, width), format_.row_dtype,
                                             chunk.data() + (row - begin) * dataset.row_bytes());
        require_finite(result, layer_index, what, row);
        encoded.square_norms.push_back(result.square_norm);
        encoded.scales.push_back(result.scale);
        encoded.square += result.square_norm;
        encoded.error_square += result.error_square;
      }
      image_.append_chunk(chunk);
    }
    return encoded;
  }

  void require_finite(const EncodedRow& row, std::size_t layer_index, const char* what, std::size_t number) const {
    if (std::isfinite(row.error_square)) return;
    throw NonFiniteError("{}: layers/{}/{} row {} (sequence {}, position {}) {}", label_, format_.layers[layer_index],
                         what, number, rows_.sequences[number], rows_.positions[number],
                         std::isfinite(row.square_norm) ? fmt::format("does not fit {}", name(format_.row_dtype))
                                                        : "holds a number that is not finite");
  }

  template <class T>
  void append_column(std::span<const T> values) {
    const Hdf5Dataset& dataset = next_dataset();
    const auto chunk_rows = static_cast<std::size_t>(dataset.chunk_rows);
    std::vector<T> chunk(chunk_rows);
    for (; !values.empty(); values = values.subspan(std::min(chunk_rows, values.size()))) {
      const auto part = values.first(std::min(chunk_rows, values.size()));
      std::fill(std::copy(part.begin(), part.end(), chunk.begin()), chunk.end(), T{});
      image_.append_chunk(std::as_bytes(std::span<const T>(chunk)));
    }
  }

  const Hdf5Dataset& next_dataset() {
    const Hdf5Dataset& dataset = layout_.at(created_++);
    image_.create(dataset);
    return dataset;
  }

  const std::string& label_;
  const CacheFormat& format_;
  const ShardRows& rows_;
  std::vector<Hdf5Dataset> layout_;
  Hdf5Image image_;
  std::size_t created_ = 0;
  std::vector<RoundingSums> rounding_;
};

/// Layouts with the chunks' addresses from the image and their checksums from its bytes.
std::vector<CacheDataset> describe(const std::vector<Hdf5Dataset>& layout, const Hdf5Image::Finished& finished) {
  const auto bytes = std::as_bytes(finished.bytes.span<std::int8_t>());
  std::vector<CacheDataset> datasets;
  for (std::size_t i = 0; i < layout.size(); ++i) {
    datasets.push_back({layout[i], {}});
    for (const Hdf5Chunk& chunk : finished.chunks.at(i)) {
      datasets.back().chunks.push_back({chunk.offset, crc32c(bytes.subspan(chunk.offset, chunk.bytes))});
    }
  }
  return datasets;
}
}  // namespace

ShardImage build_shard_image(const std::string& label, const CacheFormat& format, std::int64_t index,
                             const ShardRows& rows) {
  ShardImageBuilder builder(label, format, rows);
  builder.append_layers();
  builder.append_tokens();
  Hdf5Image::Finished finished = builder.finish();
  CacheShard shard;
  shard.index = index;
  shard.rows = static_cast<std::int64_t>(rows.ids.size());
  if (shard.rows > 0) {
    shard.first_sequence = rows.sequences.front();
    shard.last_sequence = rows.sequences.back();
  }
  shard.bytes = finished.bytes.bytes();
  shard.crc32c = crc32c(std::as_bytes(finished.bytes.span<std::int8_t>()));
  shard.datasets = describe(builder.layout(), finished);
  shard.rounding = builder.take_rounding();
  return {std::move(finished.bytes), std::move(shard)};
}

}  // namespace tadapt
