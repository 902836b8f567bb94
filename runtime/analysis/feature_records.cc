#include "runtime/analysis/feature_records.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <tuple>

#include "kernels/core/launch.h"
#include "kernels/core/random.h"
#include "runtime/analysis/byte_codec.h"

namespace tadapt {
namespace {

constexpr int kLowestExponent = -16;
constexpr std::int64_t kFeaturesPerBlock = 64;

bool drawn_before(const Example& a, const Example& b) {
  return std::tie(a.draw, a.sequence, a.position) < std::tie(b.draw, b.sequence, b.position);
}

/// Whether an example would stand in a heap of at most `most`.
template <class Before>
bool belongs(const std::vector<Example>& heap, std::size_t most, const Example& example, Before before) {
  return heap.size() < most || (most > 0 && before(example, heap.front()));
}

template <class Before>
void keep(std::vector<Example>& heap, std::size_t most, Example example, Before before) {
  if (heap.size() == most) {
    std::ranges::pop_heap(heap, before);
    heap.pop_back();
  }
  heap.push_back(std::move(example));
  std::ranges::push_heap(heap, before);
}

/// Activations of the same feature and conversation around pair `at` of [begin, end).
std::vector<NearActivation> near(const FeaturePairs& pairs, const BatchPlaces& batch, std::int32_t at,
                                 std::int32_t begin, std::int32_t end) {
  const auto row = [&](std::int32_t pair) { return pairs.rows[static_cast<std::size_t>(pair)]; };
  const auto conversation = [&](std::int32_t pair) { return batch.of_row[static_cast<std::size_t>(row(pair))]; };
  std::int32_t first = at, last = at + 1;
  while (first > begin && row(first - 1) >= row(at) - kTokensBefore && conversation(first - 1) == conversation(at))
    --first;
  while (last < end && row(last) <= row(at) + kTokensAfter && conversation(last) == conversation(at)) ++last;
  std::vector<NearActivation> found;
  found.reserve(static_cast<std::size_t>(last - first));
  for (std::int32_t pair = first; pair < last; ++pair)
    found.push_back({static_cast<std::int8_t>(row(pair) - row(at)), pairs.activations[static_cast<std::size_t>(pair)]});
  return found;
}

/// Adds the windows in which some of a feature's `rows`, ascending, lie.
void add_windows(std::vector<std::uint16_t>& found, std::span<const std::int32_t> rows, const BatchPlaces& batch) {
  for (const auto& [number, begin, end] : batch.windows) {
    const auto first = std::ranges::lower_bound(rows, begin);
    if (first != rows.end() && *first < end) found.push_back(number);
  }
}

void append(std::string& bytes, const Example& example) {
  append_bytes(bytes, example.activation);
  append_bytes(bytes, example.sequence);
  append_bytes(bytes, example.position);
  append_bytes(bytes, example.draw);
  append_bytes(bytes, static_cast<std::uint8_t>(example.near.size()));
  for (const NearActivation& one : example.near) {
    append_bytes(bytes, one.offset);
    append_bytes(bytes, one.activation);
  }
}

Example take_example(ByteReader& reader) {
  Example example{.activation = reader.take<float>(),
                  .sequence = reader.take<std::int64_t>(),
                  .position = reader.take<std::int32_t>(),
                  .draw = reader.take<std::uint64_t>(),
                  .near = {}};
  example.near.resize(reader.take<std::uint8_t>());
  for (NearActivation& one : example.near) {
    one.offset = reader.take<std::int8_t>();
    one.activation = reader.take<float>();
  }
  return example;
}

}  // namespace

int histogram_bin(float activation) {
  // Sign 0, exponent, first bit of the mantissa.
  const int half_octave = static_cast<int>(std::bit_cast<std::uint32_t>(activation) >> 22);
  return std::clamp(half_octave - 2 * (127 + kLowestExponent), 0, kHistogramBins - 1);
}

float histogram_edge(int bin) { return std::ldexp(bin % 2 == 0 ? 1.0f : 1.5f, bin / 2 + kLowestExponent); }

bool stands_before(const Example& a, const Example& b) {
  if (a.activation != b.activation) return a.activation > b.activation;
  return std::tie(a.sequence, a.position) < std::tie(b.sequence, b.position);
}

void BatchPlaces::append(std::int64_t number, std::int32_t domain, std::span<const TokenPlace> tokens) {
  for (std::size_t position = 0; position < tokens.size(); ++position) {
    of_row.push_back(static_cast<std::int32_t>(sequences.size()));
    positions.push_back(static_cast<std::int32_t>(position));
  }
  places.insert(places.end(), tokens.begin(), tokens.end());
  sequences.push_back(number);
  domains.push_back(domain);
}

void BatchPlaces::clear() {
  sequences.clear();
  domains.clear();
  of_row.clear();
  positions.clear();
  places.clear();
  windows.clear();
}

LayerRecords::LayerRecords(int layer, std::int64_t features, std::int64_t domains, const RecordOptions& options)
    : layer_(layer),
      features_(features),
      domains_(domains),
      options_(options),
      counts_(static_cast<std::size_t>(features * stride(domains)), 0),
      kept_(static_cast<std::size_t>(features)) {}

std::int64_t LayerRecords::stride(std::int64_t domains) {
  return 1 + domains + static_cast<std::int64_t>(kRegionNames.size()) + kThinkingBins + kHistogramBins;
}

void LayerRecords::add(Context& context, const FeaturePairs& pairs, const BatchPlaces& batch) {
  require_shape(static_cast<std::int64_t>(pairs.offsets.size()) == features_ + 1, "{} features, records of {}",
                pairs.offsets.size() - 1, features_);
  parallel_blocks(context, features_, kFeaturesPerBlock, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t feature = begin; feature < end; ++feature) add_feature(feature, pairs, batch);
  });
}

void LayerRecords::add_feature(std::int64_t feature, const FeaturePairs& pairs, const BatchPlaces& batch) {
  const auto at = static_cast<std::size_t>(feature);
  const std::int32_t begin = pairs.offsets[at], end = pairs.offsets[at + 1];
  if (begin == end) return;
  const auto most_top = static_cast<std::size_t>(options_.top),
             most_sampled = static_cast<std::size_t>(options_.sampled);
  const std::span<std::int64_t> counts =
      std::span(counts_).subspan(at * static_cast<std::size_t>(stride()), static_cast<std::size_t>(stride()));
  Kept& kept = kept_[at];
  add_windows(kept.contrast, pairs.rows.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin)),
              batch);
  const std::uint64_t step = static_cast<std::uint64_t>(layer_) << 32 | static_cast<std::uint64_t>(feature);
  for (std::int32_t pair = begin; pair < end; ++pair) {
    const auto row = static_cast<std::size_t>(pairs.rows[static_cast<std::size_t>(pair)]);
    const auto conversation = static_cast<std::size_t>(batch.of_row[row]);
    Example example{.activation = pairs.activations[static_cast<std::size_t>(pair)],
                    .sequence = batch.sequences[conversation],
                    .position = batch.positions[row],
                    .near = {}};
    if (!std::isfinite(example.activation))
      throw NonFiniteError("features: conversation {} of the corpus, token {}: feature {} of layer {} is not finite",
                           example.sequence, example.position, feature, layer_);
    count(counts, example.activation, batch.places[row], batch.domains[conversation]);
    example.draw =
        RandomStream(options_.seed, RandomPurpose::kExamples, step, static_cast<std::uint64_t>(example.sequence))
            .bits64(static_cast<std::uint32_t>(example.position));
    const bool is_top = belongs(kept.top, most_top, example, stands_before);
    const bool is_sampled = belongs(kept.sampled, most_sampled, example, drawn_before);
    if (!is_top && !is_sampled) continue;
    example.near = near(pairs, batch, pair, begin, end);
    if (is_top) keep(kept.top, most_top, example, stands_before);
    if (is_sampled) keep(kept.sampled, most_sampled, std::move(example), drawn_before);
  }
}

void LayerRecords::count(std::span<std::int64_t> counts, float activation, const TokenPlace& place,
                         std::int32_t domain) const {
  const auto regions = static_cast<std::size_t>(1 + domains_), thinking = regions + kRegionNames.size();
  ++counts[0];
  ++counts[1 + static_cast<std::size_t>(domain)];
  ++counts[regions + static_cast<std::size_t>(place.region)];
  if (place.thinking_bin >= 0) ++counts[thinking + static_cast<std::size_t>(place.thinking_bin)];
  ++counts[thinking + kThinkingBins + static_cast<std::size_t>(histogram_bin(activation))];
}

std::string LayerRecords::encoded() const {
  std::string bytes;
  append_bytes(bytes, static_cast<std::int64_t>(layer_));
  append_bytes(bytes, features_);
  append_bytes(bytes, domains_);
  append_bytes(bytes, std::span<const std::int64_t>(counts_));
  for (const Kept& kept : kept_) {
    for (const std::vector<Example>* examples : {&kept.top, &kept.sampled}) {
      append_bytes(bytes, static_cast<std::uint16_t>(examples->size()));
      for (const Example& example : *examples) append(bytes, example);
    }
    append_bytes(bytes, static_cast<std::uint16_t>(kept.contrast.size()));
    append_bytes(bytes, std::span<const std::uint16_t>(kept.contrast));
  }
  return bytes;
}

void LayerRecords::merge(std::string_view bytes, const std::string& source) {
  ByteReader reader(bytes, source);
  if (reader.take<std::int64_t>() != layer_ || reader.take<std::int64_t>() != features_ ||
      reader.take<std::int64_t>() != domains_)
    reader.wrong("holds another layer, or another number of features or domains");
  std::vector<std::int64_t> counts(counts_.size());
  reader.take(std::span(counts));
  for (std::size_t i = 0; i < counts.size(); ++i) counts_[i] += counts[i];
  const auto join = [&](std::vector<Example>& heap, int most, auto before) {
    for (int left = reader.take<std::uint16_t>(); left > 0; --left) {
      Example example = take_example(reader);
      if (belongs(heap, static_cast<std::size_t>(most), example, before))
        keep(heap, static_cast<std::size_t>(most), std::move(example), before);
    }
  };
  for (Kept& kept : kept_) {
    join(kept.top, options_.top, stands_before);
    join(kept.sampled, options_.sampled, drawn_before);
    std::vector<std::uint16_t> windows(reader.take<std::uint16_t>());
    reader.take(std::span(windows));
    kept.contrast.insert(kept.contrast.end(), windows.begin(), windows.end());
  }
  if (!reader.at_end()) reader.wrong("goes on after its end");
}

FeatureCounts LayerRecords::counts(std::int64_t feature) const {
  std::span<const std::int64_t> rest = std::span(counts_).subspan(static_cast<std::size_t>(feature * stride()));
  const auto take = [&](std::size_t count) {
    const std::span<const std::int64_t> taken = rest.first(count);
    rest = rest.subspan(count);
    return taken;
  };
  FeatureCounts counts{.active = take(1).front(), .by_domain = {}, .by_region = {}, .by_thinking = {}, .histogram = {}};
  counts.by_domain = take(static_cast<std::size_t>(domains_));
  counts.by_region = take(kRegionNames.size());
  counts.by_thinking = take(kThinkingBins);
  counts.histogram = take(kHistogramBins);
  return counts;
}

std::vector<Example> LayerRecords::top(std::int64_t feature) const {
  std::vector<Example> examples = kept_[static_cast<std::size_t>(feature)].top;
  std::ranges::sort(examples, stands_before);
  return examples;
}

std::vector<Example> LayerRecords::sampled(std::int64_t feature) const {
  std::vector<Example> examples = kept_[static_cast<std::size_t>(feature)].sampled;
  std::ranges::sort(examples, drawn_before);
  return examples;
}

std::vector<std::int32_t> LayerRecords::contrast(std::int64_t feature) const {
  const std::vector<std::uint16_t>& kept = kept_[static_cast<std::size_t>(feature)].contrast;
  std::vector<std::int32_t> windows(kept.begin(), kept.end());
  std::ranges::sort(windows);
  return windows;
}

double LayerRecords::most_bytes(std::int64_t features, std::int64_t domains, const RecordOptions& options) {
  constexpr double kExample = sizeof(Example) + (kTokensBefore + 1 + kTokensAfter) * sizeof(NearActivation);
  return static_cast<double>(features) *
         (static_cast<double>(stride(domains)) * sizeof(std::int64_t) + sizeof(Kept) +
          (options.top + options.sampled) * kExample + options.contrast * static_cast<double>(sizeof(std::uint16_t)));
}

}  // namespace tadapt
