// Records are TFRecord's: length, masked CRC32C of the length, an Event message, masked CRC32C of it. Messages are
// encoded by hand: of event.proto and summary.proto they need six fields.
#include "runtime/report/tensorboard.h"

#include <bit>
#include <cmath>
#include <string>
#include <string_view>

#include "runtime/report/metrics_reader.h"

namespace tadapt {
namespace {

enum class Wire : std::uint64_t { kVarint = 0, kBytes = 2, kFixed32 = 5 };

std::string varint(std::uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
  return bytes + static_cast<char>(value);
}

template <class Unsigned>
std::string little_endian(Unsigned value) {
  std::string bytes;
  for (std::size_t i = 0; i < sizeof value; ++i) bytes += static_cast<char>(value >> (8 * i));
  return bytes;
}

std::string field(std::uint64_t number, Wire wire, std::string_view content) {
  std::string bytes = varint(number << 3 | static_cast<std::uint64_t>(wire));
  if (wire == Wire::kBytes) bytes += varint(content.size());
  return bytes.append(content);
}

std::string scalar_event(std::int64_t step, const std::string& tag, double value) {
  const auto simple = little_endian(std::bit_cast<std::uint32_t>(static_cast<float>(value)));
  const std::string of_summary = field(1, Wire::kBytes, tag) + field(2, Wire::kFixed32, simple);  // tag, simple_value
  return field(2, Wire::kVarint, varint(static_cast<std::uint64_t>(step))) +
         field(5, Wire::kBytes, field(1, Wire::kBytes, of_summary));  // step, summary.value
}

std::string masked_crc(std::string_view bytes) {
  const std::uint32_t crc = crc32c(std::as_bytes(std::span(bytes)));
  return little_endian(std::rotr(crc, 15) + 0xa282ead8u);
}

std::string record(const std::string& message) {
  const std::string length = little_endian(static_cast<std::uint64_t>(message.size()));
  return length + masked_crc(length) + message + masked_crc(message);
}

std::string tag_of(const MetricsLine& line, const MetricsFigure& figure) {
  const std::string of = figure.trainee == kWhole ? "all" : figure.trainee == kMean ? "mean" : figure.trainee;
  return (line.kind == MetricsLine::Kind::kHeldOut ? "held_out_" : "") + figure.metric + "/" + of;
}

}  // namespace

std::int64_t write_tensorboard(FileSystem& files, const std::filesystem::path& metrics,
                               const std::filesystem::path& directory) {
  files.make_directories(directory);
  const auto file = files.open(directory / "events.out.tfevents.0000000000.tadapt", OpenMode::kCreate);
  constexpr std::size_t kPieceBytes = 1 << 20;
  std::string piece = record(field(3, Wire::kBytes, "brain.Event:2"));  // file_version
  std::uint64_t end = 0;
  const auto flush = [&] {
    file->write(end, std::as_bytes(std::span(piece)));
    end += piece.size();
    piece.clear();
  };
  std::int64_t scalars = 0;
  read_metrics(files, metrics, [&](const MetricsLine& line) {
    for (const MetricsFigure& figure : line.figures) {
      if (!std::isfinite(figure.value)) continue;
      piece += record(scalar_event(line.step, tag_of(line, figure), figure.value));
      ++scalars;
    }
    if (piece.size() > kPieceBytes) flush();
  });
  flush();
  return scalars;
}

}  // namespace tadapt
